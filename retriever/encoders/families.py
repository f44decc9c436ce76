"""Which family a model's folder is of, by what its config says, never by the spelling of its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from index.errors import OctavoError
from retriever.encoders.checkpoint import read_json
from retriever.encoders.late_rows import ROWS
from retriever.models import JINA_CLIP, OPEN_CLIP


class Family(NamedTuple):
    """architectures: what config.json may call it; home: `module:callable` of its encoder; tasks: has it several?"""

    name: str
    architectures: tuple[str, ...]
    home: str
    tasks: bool = False

    @property
    def make(self) -> Callable[..., Any]:
        """(folder, device=, dtype=, name=; task= where it has tasks, base= for an adapter) -> the encoder."""
        module, attribute = self.home.split(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return found


DUAL = {"CLIPModel": "clip", "SiglipModel": "siglip", "Siglip2Model": "siglip2-naflex"}  # by architecture
FAMILIES = (
    Family("jina-embeddings-v4", ("JinaEmbeddingsV4Model",), "retriever.encoders.jina_v4:JinaV4", True),
    *(Family(name, (architecture,), "retriever.encoders.dual:DualEncoder") for architecture, name in DUAL.items()),
    *(Family(row.name, (row.architecture,), "retriever.encoders.late:LateEncoder") for row in ROWS),
)
REFUSED = {"JinaCLIPModel": JINA_CLIP}
SENTENCE = Family("sentence-transformers", (), "retriever.encoders.sentence:SentenceEncoder")


def family_of(folder: Path) -> Family:
    """The family of a folder. Raises OctavoError naming what was found and what is supported."""
    sentence, other = ((folder / file).is_file() for file in ("modules.json", "open_clip_config.json"))
    config = {} if (sentence or other) and not (folder / "config.json").exists() else read_json(folder, "config.json")
    named = config.get("architectures")
    names = {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
    for family in FAMILIES:
        if names & set(family.architectures):
            return family
    for reason in (*(REFUSED[name] for name in names & set(REFUSED)), *([OPEN_CLIP] if other else [])):
        raise OctavoError(f"{folder} cannot be loaded: {reason}")
    if sentence:
        return SENTENCE
    known = ", ".join(name for family in FAMILIES for name in family.architectures)
    raise OctavoError(
        f"{folder / 'config.json'} is of architecture {named!r}, model_type {config.get('model_type')!r}, which is not "
        f"supported. Supported are {known}: see `octavo models`"
    )
