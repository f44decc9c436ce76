"""The second stage: exact MaxSim of the candidates over their stored tokens, best first."""

from __future__ import annotations

import numpy as np

from index.ragged import Ragged
from index.snapshot import Snapshot
from retriever.kernels import maxsim


def score(queries: Ragged, ids: np.ndarray, store: Snapshot) -> np.ndarray:
    """MaxSim of b queries with the pages `ids` (n,): (b, n) float32, -inf for a page that stores no tokens."""
    scores: np.ndarray = maxsim(queries, store.views(ids))
    return scores


def rerank(queries: Ragged, ids: np.ndarray, store: Snapshot, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each query the k best of the pages `ids` that have tokens: (scores, ids), ties by (document, page)."""
    return [top(row, ids, store, k) for row in score(queries, ids, store)]


def top(scores: np.ndarray, ids: np.ndarray, store: Snapshot, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest finite scores with their ids, ties by (document, page)."""
    real = np.isfinite(scores)
    scores, ids = scores[real], ids[real]
    order = np.lexsort((store.rank(ids), -scores))[:k]
    return scores[order], ids[order]
