"""The first stage: which pages are worth scoring exactly. One seam, several implementations, chosen by corpus size.

    exact   every page
    codes   every page by the centroids of its tokens (index.scan)
    rows    every page by some 32 means of tokens that are alike (index.rows)
    pooled  one vector a page in FAISS (index.pooled)

All but `exact` are derived from the store and kept in a cache file that may go at any time. Page ids are never reused,
so a cache of an earlier generation is still right about the pages it has. Not here: exact scores (retriever.rerank).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from index import cache
from index.ragged import Ragged

STAGES = ("auto", "exact", "codes", "rows", "pooled")
EXACT_TOKENS = 1_000_000
"""Corpora of fewer tokens are scored whole (benchmarks/LOG.md)."""

CANDIDATES, MANY = 150, 100_000  # candidates of a search of so many pages, or of fewer


class Queries(NamedTuple):
    """b queries: their tokens (m, d), and their pooled vectors (b, D) float32."""

    tokens: Ragged
    singles: np.ndarray


class Candidates(Protocol):
    """What the engine asks of a first stage."""

    kind: str

    def search(self, queries: Queries, n: int, allow: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each query (scores, ids) of at most n pages, best first, ties by id; allow: the ids to choose from, None
        for all."""
        ...


class Source(Protocol):
    """Where a derived stage gets its pages from; a Snapshot."""

    def pooled(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, D) float32."""
        ...

    def vectors(self, ids: Sequence[int] | np.ndarray) -> Ragged:
        """The decoded tokens of n pages."""
        ...


class Derived(Candidates, Protocol):
    """A first stage that is made from the store."""

    def update(self, ids: np.ndarray, source: Source) -> bool:
        """Hold just the pages `ids` (rising), asking for those that are missing. Whether anything had to change."""
        ...

    def remove(self, ids: np.ndarray) -> None:
        """Forget pages."""
        ...

    def copy(self) -> Derived:
        """A second one with the same pages, to change while this one is searched."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A record and arrays to keep, from which `restored` makes it again."""
        ...


class Exact:
    """Every page is a candidate, with no score of its own; n is not asked."""

    kind = "exact"

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def search(self, queries: Queries, n: int, allow: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """All ids, or those allowed."""
        ids = self.ids if allow is None else np.intersect1d(self.ids, allow, assume_unique=True)
        return [(np.zeros(len(ids), np.float32), ids)] * len(queries.singles)


def choose(tokens: int, setting: str) -> str:
    """Which stage a corpus gets: `auto` is exact below EXACT_TOKENS stored tokens, else codes."""
    if setting == "auto":
        return "exact" if tokens < EXACT_TOKENS else "codes"
    return setting


def rule(setting: str) -> str:
    """Why a corpus has the stage that it has, for people."""
    return f"exact below {EXACT_TOKENS:,} tokens, codes from there on" if setting == "auto" else "chosen for this index"


def depth(pages: int) -> int:
    """How many candidates of a corpus of so many pages are scored exactly where nobody says: of ten times as many
    pages above MANY, 4.6 times as many, so that recall of the exact top ten stays above nine tenths and their scores
    cost a tenth of the scan (benchmarks/results/scale.json)."""
    return round(CANDIDATES * max(1.0, pages / MANY) ** (2 / 3))


def empty(kind: str, dim: int, single_dim: int) -> Derived:
    """A derived stage with no pages, for tokens of `dim` and pooled vectors of `single_dim`."""
    stage, size = _made_of(kind, dim, single_dim)
    made: Derived = stage(size)
    return made


def restored(kind: str, folder: Path, index: bytes, dim: int, single_dim: int) -> Derived | None:
    """A derived stage out of its cache file, None where that is not there, not whole, or of another index."""
    kept = cache.load(folder, kind, index)
    if kept is None:
        return None
    stage, size = _made_of(kind, dim, single_dim)
    try:
        made: Derived = stage.restored(size, *kept)
        return made
    except (KeyError, ValueError, TypeError):
        return None


def _made_of(kind: str, dim: int, single_dim: int) -> tuple[Any, int]:
    """The class of a derived stage, and the dimension of the vectors that it is made of."""
    if kind == "codes":
        from index.scan import Scan

        return Scan, dim
    if kind == "rows":
        from index.rows import Rows

        return Rows, dim
    from index.pooled import Pooled

    return Pooled, single_dim
