"""One query against one generation of the index: both lanes, and the k best pages.

`visual`: the first stage's candidates by exact MaxSim. `text`: BM25. `hybrid`: the best of both, each page scored
exactly in both lanes, fused. What a search may be asked is checked here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from index.candidates import CANDIDATES as CANDIDATES
from index.candidates import Queries, depth
from index.errors import QueryError
from index.ragged import Ragged
from index.snapshot import Snapshot
from index.text import terms
from retriever.hybrid import fuse
from retriever.rerank import rerank, score, top

MODES = ("hybrid", "visual", "text")
TEXT_SHARE = 3
"""Pages that are scored exactly: so many of the visual lane, and a third as many of the text lane that are not among
them, as a page that is far down in both lanes is not far up in their sum (benchmarks/LOG.md)."""
MORE = 4
"""Times as many candidates are there for the visual lane alone, which stops where the rest promise too little."""
LONGEST_QUERY = 4096  # characters
MOST_RESULTS = 10_000


class Found(NamedTuple):
    """A page id with its score and the score of each lane that has one."""

    page: int
    score: float
    lanes: dict[str, float]


def check_search(texts: Sequence[str], k: int, mode: str, candidates: int | str | None) -> int | None:
    """The number of candidates, None for all, 0 for what suits. Raises QueryError for what cannot be searched for."""
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise QueryError("the query is empty; ask for some words")
        if len(text) > LONGEST_QUERY:
            raise QueryError(f"the query has {len(text)} characters, {LONGEST_QUERY} are the most; shorten it")
    if mode not in MODES:
        raise QueryError(f"mode is one of {', '.join(MODES)}; got {mode!r}")
    if not isinstance(k, int) or not 1 <= k <= MOST_RESULTS:
        raise QueryError(f"k is a number from 1 to {MOST_RESULTS}; got {k!r}")
    if candidates == "all":
        return None
    if candidates is not None and (not isinstance(candidates, int) or candidates < 1):
        raise QueryError(f"candidates is a number of pages, or 'all'; got {candidates!r}")
    return 0 if candidates is None else int(candidates)


def suits(snapshot: Snapshot, mode: str = "visual") -> int:
    """How many candidates of the visual lane there are where nobody names a number."""
    return depth(len(snapshot)) * (MORE if mode == "visual" else 1)


def rank(
    snapshot: Snapshot,
    said: Sequence[str],
    query: np.ndarray,
    single: np.ndarray,
    k: int,
    mode: str,
    where: dict[str, Any] | None,
    limit: int | None,
    but: int | None = None,
) -> list[Found]:
    """The k best pages, best first. said: a text for each part of the query; query: (m, d), single: (D,), neither
    looked at in mode `text`; limit: candidates of each lane, None for all, 0 for what suits; but: a page left out."""
    n = max(limit or suits(snapshot, mode), k) if limit is not None else max(len(snapshot), 1)
    text_scores, text_ids, ceiling = np.zeros(0), np.zeros(0, np.int64), 0.0
    if mode != "visual":
        text_scores, text_ids, ceiling = _match(snapshot, said, where)
        if but is not None:
            text_scores, text_ids = text_scores[text_ids != but], text_ids[text_ids != but]
    if mode == "text":
        return _found(*top(text_scores, text_ids, snapshot, k), "text")
    queries, more = Ragged.of([query]), int(but is not None)
    promise, ids = snapshot.first_stage.search(Queries(queries, single[None]), n + more, snapshot.allowed(where))[0]
    if but is not None:
        promise, ids = promise[ids != but], ids[ids != but]
    visual, ids = rerank(queries, ids, snapshot, k if mode == "visual" else n, promise if limit == 0 else None)[0]
    if mode == "visual":
        return _found(visual, ids, "visual")
    rest = np.setdiff1d(text_ids[: max(k, n // TEXT_SHARE)], ids)
    visual, ids = np.concatenate([visual, score(queries, rest, snapshot)[0]]), np.concatenate([ids, rest])
    bm25 = dict(zip(text_ids.tolist(), text_scores.tolist(), strict=True))
    words = np.array([bm25.get(page, 0.0) for page in ids.tolist()])
    lanes = {
        page: _lanes(seen, said) for page, seen, said in zip(ids.tolist(), visual.tolist(), words.tolist(), strict=True)
    }
    scores, ids = top(fuse(visual, words, ceiling, snapshot.contents(ids)), ids, snapshot, k)
    return [Found(page, value, lanes[page]) for page, value in zip(ids.tolist(), scores.tolist(), strict=True)]


def _match(
    snapshot: Snapshot, said: Sequence[str], where: dict[str, Any] | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """BM25 of the pages (n,), their ids (n,), best first, and what no page can pass; of several texts, the sum of their
    shares of that."""
    found = [(*snapshot.match(text, where), snapshot.ceiling(text)) for text in said]
    if len(found) == 1:
        return found[0]
    shares: dict[int, float] = {}
    for scores, ids, ceiling in found:
        for page, value in zip(ids.tolist(), scores.tolist(), strict=True):
            shares[page] = shares.get(page, 0.0) + value / max(ceiling, 1e-12)
    ids = np.array(sorted(shares, key=lambda page: (-shares[page], page)), np.int64)
    return np.array([shares[page] for page in ids.tolist()]), ids, float(sum(ceiling > 0 for *_, ceiling in found))


def _found(scores: np.ndarray, ids: np.ndarray, lane: str) -> list[Found]:
    return [Found(page, value, {lane: value}) for page, value in zip(ids.tolist(), scores.tolist(), strict=True)]


def _lanes(visual: float, text: float) -> dict[str, float]:
    return {"visual": visual, "text": text} if np.isfinite(visual) else {"text": text}


def normalised(found: Found, query: np.ndarray, text: str, words: str) -> float:
    """A score in [0, 1] that means the same in every search: MaxSim over the highest possible (page tokens have norm
    1); where there is none, the share of the query's terms that the page has."""
    if "visual" in found.lanes:
        highest = float(np.linalg.norm(query, axis=1).sum())
        return min(max(found.lanes["visual"] / highest, 0.0), 1.0) if highest else 0.0
    asked = set(terms(text))
    return len(asked & set(terms(words))) / len(asked) if asked else 0.0
