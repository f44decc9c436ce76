"""Encoders: the one in the package by its name, others from a folder or the hub; is it that which filled an index?"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.errors import EncoderMismatch, OctavoError, QueryError
from ingest.page import Encoder

if TYPE_CHECKING:
    import torch

DEFAULT = "octavo-box-1"
_ENCODERS = {DEFAULT: "retriever.encoders.box:BoxEncoder"}
_told: set[str] = set()  # models whose licence was shown in this process
logger = logging.getLogger(__name__)


def is_address(name: str) -> bool:
    """Does this name a server rather than a model or a folder?"""
    return name.lower().startswith(("http://", "https://"))


def load_encoder(
    name_or_path: str | Path = DEFAULT,
    *,
    task: str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Encoder:
    """The encoder in the package, a model from a folder or the hub, of a family that its config names, or a server's
    by its address: https://host/pooling or https://host/v1/embeddings, and #model=NAME (`retriever.encoders.remote`).

    task: for families that have tasks, None for retrieval; device: None for CUDA where there is one; revision: of the
    hub, None for the one that is pinned in `retriever.models`; dtype: None for bfloat16 on a GPU, float32 elsewhere.
    Only safetensors are read and no code of the model is run; a model is tried on two queries and two pictures before
    it is handed out, and its licence logged once. Raises QueryError for an unknown name, OctavoError for a model that
    is not supported, not there, damaged or not working.
    """
    name = str(name_or_path)
    if name in _ENCODERS and task is not None:
        raise QueryError(f"{name} has no tasks; leave task out, or name an encoder that has: see octavo models")
    if name in _ENCODERS:
        module, attribute = _ENCODERS[name].split(":")
        encoder: Encoder = getattr(importlib.import_module(module), attribute)()
        return encoder
    if is_address(name):
        if (device, revision, dtype) != (None, None, None):
            raise QueryError("of a server, device, revision and dtype are its own affair; leave them out")
        from retriever.encoders.remote import RemoteEncoder

        served: Any = RemoteEncoder(name, task=task)
        return served
    from retriever.encoders.families import family_of
    from retriever.encoders.hub import base_of, folder_of, licence_of
    from retriever.encoders.selfcheck import self_check
    from retriever.models import licence, pinned, refused

    if refused(name) and not Path(name).is_dir():
        raise OctavoError(f"{name} cannot be loaded: {refused(name)}")
    known = ", ".join(sorted(_ENCODERS))
    folder = folder_of(name, revision or pinned(name), known)
    base = base_of(folder, known)
    family = family_of(base or folder)
    options: dict[str, Any] = {"base": base} if base else {}
    if task is not None and not family.tasks:
        raise QueryError(f"{name} is of the family {family.name}, which has no tasks; leave task out")
    options |= {"task": task} if task is not None else {}
    model = family.make(
        folder, device=device, dtype=dtype, name=str(folder) if Path(name).is_dir() else name, **options
    )
    self_check(model, model.weight_bytes, name)
    terms = licence(name, family.name) or licence_of(folder)
    if name not in _told:
        _told.add(name)
        logger.warning("%s: licence %s", name, terms or "unknown; see the page of the model")
    loaded: Encoder = model
    return loaded


def check_encoder(encoder: Encoder | str, folder: Path, wanted: dict[str, Any]) -> None:
    """Raise EncoderMismatch unless an encoder, or one of that name, has the fingerprint that an index wants."""
    if isinstance(encoder, str):
        built_in = encoder in _ENCODERS or wanted.get("family") is None  # of others, only their weights tell
        differing = [("name", wanted.get("name"), encoder)] if built_in and encoder != wanted.get("name") else []
    else:
        differing = _differences(wanted, encoder.fingerprint)
        if wanted.get("family") == encoder.fingerprint.get("family") is not None:
            differing = [item for item in differing if item[0] != "name"]  # where it lies does not matter
    if differing:
        again = wanted.get("name") == DEFAULT == getattr(encoder, "name", encoder)
        ways = "make its vectors again of the words that it keeps (octavo recode --anew), " if again else ""
        told = "; ".join(f"{key}: index {_short(theirs)}, encoder {_short(ours)}" for key, theirs, ours in differing)
        raise EncoderMismatch(
            f"{folder} was filled by another encoder than this one ({told}). Open it with the one that filled it (by "
            f"default the one that it names), {ways}or index the files again into a new folder"
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
