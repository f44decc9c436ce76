"""The second stage: exact MaxSim of the candidates over their stored tokens, best first.

Where only the k best are wanted and tokens are stored as small integers, a query rounded to 8 bits scores the
candidates first, in a third of the time, and those whose rounded score leaves a doubt are scored exactly. With the
scores of a first stage at hand the candidates that promise little are not looked at.
"""

from __future__ import annotations

import numpy as np

from index import native
from index.codec import rotated
from index.ragged import Ragged, Views
from index.snapshot import Snapshot
from retriever.kernels import maxsim

ROUNDED = ("int8", "int4")  # codecs that are multiplied by 8-bit queries
STEPS = 63  # that such a query has at least, either way of zero
WORTH = 16  # pages beside twice k that must be there to be ruled out
DOUBT = 6.0  # standard deviations of the difference of two rounded scores


def score(queries: Ragged, ids: np.ndarray, store: Snapshot) -> np.ndarray:
    """MaxSim of b queries with the pages `ids` (n,): (b, n) float32, -inf for a page that stores no tokens."""
    scores: np.ndarray = maxsim(queries, store.views(ids))
    return scores


def rerank(
    queries: Ragged, ids: np.ndarray, store: Snapshot, k: int, promise: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each query the k best of the pages `ids` that have tokens: (scores, ids), ties by (document, page).

    promise: (n,) scores of a first stage, falling; then the last pages are left out, unseen, where they promise little.
    """
    pages, found = store.views(ids), []
    promise = promise if promise is not None and len(promise) and promise[0] > promise[-1] else None
    for query in queries:
        kept = _undecided(query, pages, store, k, promise)
        found.append(top(maxsim(query, pages[kept]), ids[kept], store, k))
    return found


def top(scores: np.ndarray, ids: np.ndarray, store: Snapshot, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest finite scores with their ids, ties by (document, page)."""
    real = np.isfinite(scores)
    scores, ids = scores[real], ids[real]
    order = np.lexsort((store.rank(ids), -scores))[:k]
    return scores[order], ids[order]


def _undecided(query: np.ndarray, pages: Views, store: Snapshot, k: int, promise: np.ndarray | None) -> np.ndarray:
    """Rows, rising, of the pages that their promise, and a query (m, d) in 8 bits, do not rule out of the k best.

    Rounding moves each component by up to half a step, evenly; a page token of norm 1 turns that into an error with
    the deviation of one component, a step / sqrt(12), and those of the query's tokens add up as independent ones, as
    do those of two pages.
    """
    rounded = pages.codec in ROUNDED and native.available() is not None
    if len(pages) < 2 * k + WORTH or not (rounded or promise is not None):
        return np.arange(len(pages))
    tokens = Ragged.of([rotated(query, pages.codec)])
    place = (pages.addresses, pages.lengths, pages.codec, pages.dim, pages.scales)
    precision, threads = "int8" if rounded else "fp32", native.default_threads()
    rough = native.maxsim(tokens, *place, precision, threads, promise=promise, k=k)[0]
    steps = np.abs(tokens.values).max(axis=1, initial=0) / STEPS if rounded else np.zeros(1)
    doubt = DOUBT * store.longest * np.sqrt(2 * (steps**2).sum() / 12)
    return np.flatnonzero(rough >= np.partition(rough, -k)[-k] - doubt)
