"""Question sets under shared/data (see its README), by the loader and the measure of retriever.evaluation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from retriever.evaluation import metrics
from retriever.evaluation.datasets import load

DATA = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
HALF = 72
"""The head was trained on questions of the pages of xquad before this one (retriever/training/box/pools.py)."""


class Question(NamedTuple):
    """text: what is asked; lang: its language; pages: ids of the relevant ones, `<file>#<page, from 0>`."""

    id: str
    text: str
    lang: str
    pages: frozenset[str]


def questions(name: str) -> list[Question]:
    """The questions of a set. Raises FileNotFoundError where the set is not there."""
    (found,) = load(str(DATA / name))
    relevant = {
        query: frozenset(page for page, grade in pages.items() if grade > 0) for query, pages in found.qrels.items()
    }
    return [Question(query.id, query.text, query.lang, relevant.get(query.id, frozenset())) for query in found.queries]


def pdfs(name: str) -> list[Path]:
    """The documents of a set."""
    return sorted((DATA / name / "pdf").glob("*.pdf"))


def ndcg(ranking: Sequence[str], relevant: frozenset[str], k: int = 5) -> float:
    """nDCG@k with grades 0 and 1."""
    return metrics.ndcg(ranking, dict.fromkeys(relevant, 1), k)
