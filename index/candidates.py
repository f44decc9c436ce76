"""The first stage: which pages are worth scoring. One pooled vector a page in FAISS, or every page where there are few.

FAISS is a cache. Its file carries the name of the index, a generation and a checksum; one that does not fit is thrown
away and built again from the store, and what is missing or gone since is added or removed. Page ids are never reused,
so a file of an earlier generation is still right about the pages it has. Not here: exact scores (retriever.rerank).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from index.failpoint import failpoint
from index.store import sync_folder

FILE = "pooled.cache"
EXACT_TOKENS = 300_000
"""Corpora of fewer tokens are scored whole: a numpy scan of these takes some 50 ms (benchmarks/LOG.md)."""


class Candidates(Protocol):
    """What the engine asks of a first stage; queries are the pooled ones, (b, D) float32."""

    kind: str

    def search(
        self, queries: np.ndarray, n: int, allow: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each query (scores, ids) of at most n pages, best first; allow: the ids to choose from, None for all."""
        ...


class Exact:
    """Every page is a candidate, with no score of its own; n is not asked."""

    kind = "exact"

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def search(
        self, queries: np.ndarray, n: int, allow: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """All ids, or those allowed."""
        ids = self.ids if allow is None else np.intersect1d(self.ids, allow, assume_unique=True)
        return [(np.zeros(len(ids), np.float32), ids)] * len(queries)


class Pooled:
    """One vector a page, inner product, half precision (FAISS IndexScalarQuantizer): exact but for the rounding."""

    kind = "pooled"

    def __init__(self, dim: int) -> None:
        import faiss

        self.dim = dim
        self.faiss = faiss.IndexIDMap2(
            faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        )

    @property
    def ids(self) -> np.ndarray:
        """(n,) int64, in the order of the rows."""
        import faiss

        return faiss.vector_to_array(self.faiss.id_map)

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """vectors: (n, D) float32; ids: (n,) int64, new ones."""
        self.faiss.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))

    def copy(self) -> Pooled:
        """A second one with the same pages, to change while this one is searched."""
        twin = Pooled(self.dim)
        twin.add(self.vectors(), self.ids)
        return twin

    def vectors(self) -> np.ndarray:
        """(n, D) float32, in the order of `ids`."""
        return self.faiss.index.reconstruct_n(0, self.faiss.ntotal)

    def remove(self, ids: np.ndarray) -> None:
        """Forget pages."""
        if len(ids):
            self.faiss.remove_ids(np.ascontiguousarray(ids, np.int64))  # type: ignore[arg-type]

    def search(
        self, queries: np.ndarray, n: int, allow: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The n pages of largest inner product, ties by id."""
        import faiss

        parameters = None
        if allow is not None:
            selector = faiss.IDSelectorBatch(np.ascontiguousarray(allow, np.int64))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        n = min(n, self.faiss.ntotal)
        if not n:
            return [(np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(queries)
        scores, ids = self.faiss.search(np.ascontiguousarray(queries, np.float32), n, params=parameters)
        found = []
        for row_scores, row_ids in zip(scores, ids, strict=True):
            real = row_ids >= 0  # FAISS fills up with -1
            order = np.lexsort((row_ids[real], -row_scores[real]))
            found.append((row_scores[real][order], row_ids[real][order]))
        return found

    def update(self, ids: np.ndarray, vectors_of: Callable[[np.ndarray], np.ndarray]) -> bool:
        """Hold just `ids`, asking `vectors_of(missing ids) -> (n, D)`. Whether anything had to change."""
        have = self.ids
        gone, new = np.setdiff1d(have, ids), np.setdiff1d(ids, have)
        self.remove(gone)
        for start in range(0, len(new), 10_000):
            part = new[start : start + 10_000]
            self.add(vectors_of(part), part)
        return bool(len(gone) or len(new))


def save(pooled: Pooled, folder: Path, index: bytes, generation: int) -> None:
    """Write the cache file: digest of the rest, a line of JSON, ids, vectors in half precision; whole or not at all."""
    folder.mkdir(exist_ok=True)
    ids = pooled.ids
    body = ids.astype("<i8").tobytes() + pooled.vectors().astype("<f2").tobytes()
    record = {"index": index.hex(), "generation": generation, "count": len(ids), "dim": pooled.dim}
    data = json.dumps(record).encode() + b"\n" + body
    temporary = folder / "pooled.tmp"
    with temporary.open("wb") as file:
        file.write(_digest(data) + b"\n" + data)
        file.flush()
        os.fsync(file.fileno())
    failpoint("cache written")
    temporary.replace(folder / FILE)
    sync_folder(folder)


def load(folder: Path, index: bytes, dim: int) -> Pooled | None:
    """The cache, if it is whole and belongs to this index; None where it has to be built again.

    FAISS is filled from plain arrays: nothing that came with an index is ever handed to FAISS's own reader.
    """
    try:
        digest, data = (folder / FILE).read_bytes().split(b"\n", 1)
        if digest != _digest(data):
            return None
        head, body = data.split(b"\n", 1)
        record = json.loads(head)
        count = record["count"]
        if (record["index"], record["dim"], len(body)) != (index.hex(), dim, count * (8 + 2 * dim)):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    pooled = Pooled(dim)
    pooled.add(np.frombuffer(body, "<f2", offset=8 * count).reshape(count, dim), np.frombuffer(body, "<i8", count))
    return pooled


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


def choose(tokens: int, setting: str) -> str:
    """Which stage a corpus gets: `auto` is exact below EXACT_TOKENS stored tokens, else pooled."""
    if setting == "auto":
        return "exact" if tokens < EXACT_TOKENS else "pooled"
    return setting
