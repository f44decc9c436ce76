"""The first stage on one vector a page: the encoder's own, or the tokens' mean, by inner product in FAISS.

Exact in half precision. Above FAST pages a 4-bit product quantiser (André et al. 2015, PQ fast scan) picks the rows
that are then scored in half precision. A filtered search looks at the allowed rows alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from index.candidates import Queries, Source

FAST, LISTS = 200_000, 1_000_000  # pages from which on a product quantiser, and inverted lists before it, pay
REFINE = 16  # pages scored in half precision for each one that is asked for
STALE = 0.1  # the quantised index is made anew when such a share of its pages has gone
_SAMPLE = 160_000  # pages it is trained on
_CHUNK = 10_000


class Pooled:
    """(n, D) vectors in a FAISS IndexScalarQuantizer of half precision, by id."""

    kind = "pooled"

    def __init__(self, dim: int) -> None:
        import faiss

        self.dim = dim
        self.faiss = faiss.IndexIDMap2(
            faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        )
        self._fast: Any = None  # the quantised index
        self._rows = np.zeros(0, np.int64)  # ids of its rows; of what was removed too
        self._gone = 0  # how many those are

    @property
    def ids(self) -> np.ndarray:
        """(n,) int64, in the order of the rows."""
        import faiss

        return faiss.vector_to_array(self.faiss.id_map)

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """vectors: (n, D) float32; ids: (n,) int64, new ones."""
        vectors, ids = np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64)
        self.faiss.add_with_ids(vectors, ids)
        if self._fast is not None:
            self._fast.add(vectors)
            self._rows = np.concatenate([self._rows, ids])

    def copy(self) -> Pooled:
        """A second one with the same pages."""
        import faiss

        twin = Pooled(self.dim)
        twin.add(self.vectors(), self.ids)
        if self._fast is not None:
            twin._fast, twin._rows, twin._gone = faiss.clone_index(self._fast), self._rows, self._gone
        return twin

    def vectors(self) -> np.ndarray:
        """(n, D) float32, in the order of `ids`."""
        return self.faiss.index.reconstruct_n(0, self.faiss.ntotal)

    def remove(self, ids: np.ndarray) -> None:
        """Forget pages."""
        if len(ids):
            self._gone += self.faiss.remove_ids(np.ascontiguousarray(ids, np.int64))  # type: ignore[arg-type]

    def search(self, queries: Queries, n: int, allow: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """The n pages of largest inner product with the queries' pooled vectors, ties by id."""
        n = min(n, self.faiss.ntotal)
        if not n:
            return [(np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(queries.singles)
        singles = np.ascontiguousarray(queries.singles, np.float32)
        if allow is None and self.faiss.ntotal >= FAST:
            return self._quantised(singles, n)
        return self._flat(singles, n, allow)

    def _flat(self, singles: np.ndarray, n: int, allow: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Every page, or every one allowed, in half precision."""
        import faiss

        parameters = None
        if allow is not None:
            selector = faiss.IDSelectorBatch(np.ascontiguousarray(allow, np.int64))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, ids = self.faiss.search(singles, n, params=parameters)
        found = []
        for row_scores, row_ids in zip(scores, ids, strict=True):
            real = row_ids >= 0  # FAISS fills up with -1
            order = np.lexsort((row_ids[real], -row_scores[real]))
            found.append((row_scores[real][order], row_ids[real][order]))
        return found

    def _quantised(self, singles: np.ndarray, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The best n in half precision of REFINE n by the quantised index."""
        if self._fast is None or self._gone > STALE * len(self._rows):
            self._train()
        _, rows = self._fast.search(singles, min(REFINE * n, len(self._rows)))
        held = self.ids if self._gone else self._rows
        found = []
        for single, row in zip(singles, rows, strict=True):
            ids = self._rows[row[row >= 0]]
            ids = ids[np.isin(ids, held)] if self._gone else ids
            scores = self.faiss.reconstruct_batch(ids) @ single
            order = np.lexsort((ids, -scores))[:n]
            found.append((scores[order], ids[order]))
        return found

    def _train(self) -> None:
        import faiss

        count, self._rows, self._gone = self.faiss.ntotal, self.ids, 0
        lists = "IVF4096," if count >= LISTS else ""
        fast: Any = faiss.index_factory(self.dim, f"{lists}PQ{self.dim // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
        if lists:
            fast.nprobe = 256
        every = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64)
        fast.train(self.faiss.index.reconstruct_batch(every))
        for start in range(0, count, _CHUNK):
            fast.add(self.faiss.index.reconstruct_n(start, min(_CHUNK, count - start)))
        self._fast = fast

    def update(self, ids: np.ndarray, source: Source) -> bool:
        """Hold just `ids`, asking `source` for the pooled vectors of those that are missing."""
        have = self.ids
        gone, new = np.setdiff1d(have, ids), np.setdiff1d(ids, have)
        self.remove(gone)
        for start in range(0, len(new), _CHUNK):
            part = new[start : start + _CHUNK]
            self.add(source.pooled(part), part)
        return bool(len(gone) or len(new))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Ids and vectors."""
        return {}, {"ids": self.ids, "vectors": self.vectors().astype("<f2")}

    @classmethod
    def restored(cls, dim: int, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Pooled:
        """From what `state` gave. Raises ValueError where it does not fit."""
        ids, vectors = arrays["ids"], arrays["vectors"]
        if vectors.shape != (len(ids), dim) or len(np.unique(ids)) != len(ids):
            raise ValueError("ids and vectors do not fit")
        pooled = cls(dim)
        pooled.add(vectors, ids)
        return pooled
