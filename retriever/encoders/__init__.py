"""Encoders by name, each imported when it is asked for."""

from __future__ import annotations

import importlib

from index.errors import QueryError
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
