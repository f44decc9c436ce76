"""Octavo finds the page: `Retriever` searches documents by how their pages look and what they say.

from retriever import Retriever

with Retriever.open("my-index") as pages:
    pages.add("reports/")
    for hit in pages.search("net revenue by region, 2023"):
        print(hit.title, hit.page, hit.score, hit.snippet)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retriever.encoders import load_encoder
    from retriever.engine import Retriever
    from retriever.hit import Hit

__version__ = "0.1.0"
__all__ = ["Hit", "Retriever", "load_encoder"]
_HOME = {"Retriever": "retriever.engine", "Hit": "retriever.hit", "load_encoder": "retriever.encoders"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'retriever' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
