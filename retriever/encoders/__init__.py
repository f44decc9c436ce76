"""Encoders by name, each imported when it is asked for, and whether one is that which filled an index."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from index.errors import EncoderMismatch, QueryError
from ingest.page import Encoder

DEFAULT = "octavo-box-1"
_ENCODERS = {DEFAULT: "retriever.encoders.box:BoxEncoder"}


def load_encoder(name: str = DEFAULT) -> Encoder:
    """The encoder called `name`. Raises QueryError for a name that is not known."""
    if name not in _ENCODERS:
        raise QueryError(f"no encoder is called {name!r}; known: {', '.join(sorted(_ENCODERS))}")
    module, attribute = _ENCODERS[name].split(":")
    encoder: Encoder = getattr(importlib.import_module(module), attribute)()
    return encoder


def check_encoder(encoder: Encoder | str, folder: Path, wanted: dict[str, Any]) -> None:
    """Raise EncoderMismatch unless an encoder, or one of that name, has the fingerprint that an index wants."""
    if isinstance(encoder, str):
        differing = [] if encoder == wanted.get("name") else [("name", wanted.get("name"), encoder)]
    else:
        differing = _differences(wanted, encoder.fingerprint)
    if differing:
        told = "; ".join(f"{key}: index {_short(theirs)}, encoder {_short(ours)}" for key, theirs, ours in differing)
        raise EncoderMismatch(
            f"{folder} was filled by another encoder than this one ({told}). Open it with the one that filled it (by "
            "default the one that it names), or index the files again into a new folder"
        )


def _differences(theirs: Any, ours: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(key, in one, in the other) of what two fingerprints do not share, dicts inside them looked into."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = dict.fromkeys([*theirs, *ours])
        parts = [_differences(theirs.get(name), ours.get(name), f"{key}.{name}".strip(".")) for name in names]
        return [item for part in parts for item in part]
    return [] if theirs == ours else [(key, theirs, ours)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
