"""Pages that are alike: near-duplicates, and clusters, from the one vector that an index keeps of each page.

A page is a near-duplicate of an earlier one where their vectors are close and, looked at again, their tokens answer
each other (MaxSim from each page to the other, as a share of what the page makes of itself, at least the threshold both
ways) and they share most of their words, if both have any. Groups hang on their first page, so they do not drift from
like to like. Clusters are FAISS's spherical k-means.

In memory are n vectors in half precision and blocks of them, whatever the index holds. Not here: pictures of the pages
(retriever.similar_command).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from index.errors import QueryError
from index.ragged import Ragged
from index.snapshot import Snapshot
from index.text import terms
from retriever.rerank import score

if TYPE_CHECKING:
    from retriever.engine import Retriever

THRESHOLD = 0.95  # of both ways; what it finds and what it takes for the same is in benchmarks/LOG.md
_CLOSE = 0.9  # cosine of the vectors of two pages that are looked at again, and
_WORDS = 0.6  # of the words of the wordier page that are on the other too
_LOOKS = 4  # of how many earlier ones, the closest, at most
_BLOCK = 2048  # pages
_SAMPLE, _ROUNDS = 256, 20  # of k-means: pages a cluster that it is trained on, rounds
Told = Callable[[int, int], None] | None


class Member(NamedTuple):
    """A page of a group. likeness: to its first page or its centre, at most 1; kind, title, path: of its document."""

    document: str
    page: int
    likeness: float
    path: str
    title: str
    kind: str


def duplicates(
    retriever: Retriever, threshold: float = THRESHOLD, where: dict[str, Any] | None = None, progress: Told = None
) -> list[list[Member]]:
    """Groups of pages that say the same, the largest first; in each the page that was there first, then those like it.

    threshold: in (0, 1], of the lesser of both likenesses; where: which pages are looked at, as in `Retriever.search`;
    progress: told (pages done, of all). Pages with nothing on them are in no group. Raises QueryError.
    """
    if not 0 < threshold <= 1:
        raise QueryError(f"threshold is above 0 and at most 1; got {threshold}")
    with retriever.index.snapshot() as snapshot:
        ids, singles = _singles(snapshot, where)
        first, likeness = np.arange(len(ids)), np.ones(len(ids))
        for start in range(0, len(ids), _BLOCK):
            block = singles[start : start + _BLOCK].astype(np.float32)
            heads = np.flatnonzero(first[:start] == np.arange(start))  # a group hangs on each, of one page or more
            cosines, places = _earlier(block, singles, heads)
            beside = block @ block.T
            for row in range(start, start + len(block)):
                own = np.flatnonzero(first[start:row] == np.arange(start, row))
                near = np.concatenate([places[row - start], own + start])
                values = np.concatenate([cosines[row - start], beside[row - start, own]])
                near = near[np.argsort(-values, kind="stable")[:_LOOKS]]
                near = near[np.sort(-values)[:_LOOKS] <= -min(_CLOSE, threshold) + 1e-3]  # half precision
                first[row], likeness[row] = _same(snapshot, ids, row, near, threshold)
            if progress:
                progress(min(start + _BLOCK, len(ids)), len(ids))
        groups = [rows for rows in _by(first) if len(rows) > 1]
        groups.sort(key=lambda rows: (-len(rows), rows[0]))
        ordered = [[rows[0], *sorted(rows[1:], key=lambda row: (-likeness[row], row))] for rows in groups]
        return _members(snapshot, ids, likeness, ordered)


def clusters(
    retriever: Retriever, count: int | None = None, where: dict[str, Any] | None = None, progress: Told = None
) -> list[list[Member]]:
    """Pages by what they are about, the largest cluster first; in each the page next to its centre first.

    count: of clusters, None for the root of half the number of pages; an empty one is left out. The same index gives
    the same clusters. The rest is as for `duplicates`.
    """
    if count is not None and count < 1:
        raise QueryError(f"count is a number of clusters from 1; got {count}")
    with retriever.index.snapshot() as snapshot:
        ids, singles = _singles(snapshot, where)
        if not len(ids):
            return []
        count = min(count or max(round((len(ids) / 2) ** 0.5), 1), len(ids))
        nearest, likeness = _assigned(singles, count, progress)
        groups = [sorted(rows, key=lambda row: (-likeness[row], row)) for rows in _by(nearest)]
        return _members(snapshot, ids, likeness, sorted(groups, key=lambda rows: (-len(rows), rows[0])))


def _singles(snapshot: Snapshot, where: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """The pages that have something on them: ids (n,), rising, and their vectors (n, D) float16, of norm 1."""
    ids, allowed = snapshot.state.ids[snapshot.state.extents.tokens > 0], snapshot.allowed(where)
    ids = ids if allowed is None else np.intersect1d(ids, allowed, assume_unique=True)
    singles = np.zeros((len(ids), snapshot.layout.single_dim), np.float16)
    for start in range(0, len(ids), _BLOCK):
        vectors = snapshot.pooled(ids[start : start + _BLOCK])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        singles[start : start + _BLOCK] = vectors / np.maximum(norms, 1e-12)
    sound = singles.any(axis=1)  # a damaged page has zeros
    return ids[sound], singles[sound]


def _earlier(block: np.ndarray, singles: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closest of the pages at `heads` (h,) to each of a block (b, D): cosines (b, c), places (b, c); c is small."""
    cosines, places = np.zeros((len(block), 0), np.float32), np.zeros((len(block), 0), np.int64)
    for start in range(0, len(heads), _BLOCK):
        part = heads[start : start + _BLOCK]
        near = block @ singles[part].astype(np.float32).T
        found = np.argpartition(-near, min(_LOOKS, len(part)) - 1, axis=1)[:, :_LOOKS]
        cosines, places = np.hstack([cosines, np.take_along_axis(near, found, 1)]), np.hstack([places, part[found]])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :_LOOKS]
        cosines, places = np.take_along_axis(cosines, best, 1), np.take_along_axis(places, best, 1)
    return cosines, places


def _same(snapshot: Snapshot, ids: np.ndarray, row: int, near: np.ndarray, threshold: float) -> tuple[int, float]:
    """The place of the page that page `row` says the same as, and how alike they are; its own and 1 where none is."""
    if not len(near):
        return row, 1.0
    pages = snapshot.vectors(ids[[row, *near]])
    asked = Ragged.of([pages[0]])
    there = score(asked, ids[[row, *near]], snapshot)[0]
    there = there[1:] / there[0]
    for place in np.argsort(-there, kind="stable"):
        if there[place] < threshold:
            break
        back = score(Ragged.of([pages[1 + place]]), ids[[near[place], row]], snapshot)[0]
        alike = min(float(there[place]), float(back[1] / back[0]))
        if alike >= threshold and _shared(snapshot, ids[row], ids[near[place]]) >= _WORDS:
            return int(near[place]), min(alike, 1.0)
    return row, 1.0


def _shared(snapshot: Snapshot, one: int, other: int) -> float:
    """The share of the words of the wordier page that are on the other; 1 where a page has none, as a scan may."""
    words = [Counter(terms(snapshot.text(int(page))[0])) for page in (one, other)]
    most = max(count.total() for count in words)
    return (words[0] & words[1]).total() / most if all(words) else 1.0


def _assigned(singles: np.ndarray, count: int, progress: Told) -> tuple[np.ndarray, np.ndarray]:
    """The cluster (n,) of each page and its cosine (n,) with the centre."""
    import faiss

    chosen = np.random.default_rng(0).permutation(len(singles))[: count * _SAMPLE]
    sample = singles[np.sort(chosen)].astype(np.float32)
    means = faiss.Kmeans(
        sample.shape[1], count, niter=_ROUNDS, seed=1, spherical=True, min_points_per_centroid=1, verbose=False
    )
    means.train(sample)
    nearest, likeness = np.zeros(len(singles), np.int64), np.zeros(len(singles))
    for start in range(0, len(singles), _BLOCK):
        rows = slice(start, start + _BLOCK)
        cosines, found = means.index.search(singles[rows].astype(np.float32), 1)
        nearest[rows], likeness[rows] = found[:, 0], np.minimum(cosines[:, 0], 1.0)
        if progress:
            progress(min(start + _BLOCK, len(singles)), len(singles))
    return nearest, likeness


def _by(labels: np.ndarray) -> list[list[int]]:
    """Places with the same label together, rising, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    return [rows.tolist() for rows in np.split(order, ends)] if len(labels) else []


def _members(
    snapshot: Snapshot, ids: np.ndarray, likeness: np.ndarray, groups: Sequence[Sequence[int]]
) -> list[list[Member]]:
    def member(row: int, of: dict[str, Any]) -> Member:
        return Member(of["content"], of["number"], float(likeness[row]), of["path"] or "", of["title"], of["kind"])

    flat = [row for rows in groups for row in rows]
    told: dict[int, Member] = {}
    for start in range(0, len(flat), _BLOCK):
        rows = flat[start : start + _BLOCK]
        found = snapshot.pages(ids[rows])
        told |= {row: member(row, found[int(ids[row])]) for row in rows}
    return [[told[row] for row in rows] for rows in groups]
