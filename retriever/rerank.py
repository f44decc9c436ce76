"""The second stage: exact MaxSim of the candidates over their stored tokens, best first.

Where only the k best are wanted and tokens are stored as small integers, a query rounded to 8 bits scores every
candidate first, in half the time, and those whose rounded score leaves a doubt are scored exactly.
"""

from __future__ import annotations

import numpy as np

from index import native
from index.codec import rotated
from index.ragged import Ragged
from index.snapshot import Snapshot
from retriever.kernels import maxsim

ROUNDED = ("int8", "int4")  # codecs that are multiplied by 8-bit queries
STEPS = 63  # that such a query has at least, either way of zero
WORTH = 100  # pages that must be there to be ruled out
DOUBT = 6.0  # standard deviations of a rounded score, either way


def score(queries: Ragged, ids: np.ndarray, store: Snapshot) -> np.ndarray:
    """MaxSim of b queries with the pages `ids` (n,): (b, n) float32, -inf for a page that stores no tokens."""
    scores: np.ndarray = maxsim(queries, store.views(ids))
    return scores


def rerank(queries: Ragged, ids: np.ndarray, store: Snapshot, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each query the k best of the pages `ids` that have tokens: (scores, ids), ties by (document, page)."""
    found = []
    for query in queries:
        kept = ids[_undecided(query, ids, store, k)]
        found.append(top(score(Ragged.of([query]), kept, store)[0], kept, store, k))
    return found


def top(scores: np.ndarray, ids: np.ndarray, store: Snapshot, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest finite scores with their ids, ties by (document, page)."""
    real = np.isfinite(scores)
    scores, ids = scores[real], ids[real]
    order = np.lexsort((store.rank(ids), -scores))[:k]
    return scores[order], ids[order]


def _undecided(query: np.ndarray, ids: np.ndarray, store: Snapshot, k: int) -> np.ndarray:
    """(n,) bool: pages that a query (m, d) in 8 bits does not rule out of the k best.

    Rounding moves each component by up to half a step, evenly; a page token of norm 1 turns that into an error with
    the deviation of one component, a step / sqrt(12), and those of the query's tokens add up as independent ones.
    Tokens are taken to be as long as the longest of the best page.
    """
    codec = store.layout.codec
    if codec not in ROUNDED or len(ids) < 2 * k + WORTH or not native.available():
        return np.ones(len(ids), bool)
    rough = maxsim(query, store.views(ids), precision="int8")
    longest = np.linalg.norm(store.vectors(ids[[rough.argmax()]]).values, axis=1).max(initial=0)
    steps = np.abs(rotated(query, codec)).max(axis=1, initial=0) / STEPS
    doubt = DOUBT * longest * np.sqrt((steps**2).sum() / 12)
    undecided: np.ndarray = rough >= np.partition(rough, -k)[-k] - 2 * doubt
    return undecided
