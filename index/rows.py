"""The first stage on pooled rows: MaxSim of the query with some 32 rows a page, each the mean of tokens that are alike.

Four kilobytes a page of 128 components, and no table that is trained: a page's rows are made of its own tokens alone
(index.pooling), so nothing is made anew when a corpus grows or changes its subject. Rows are kept in 8 bits and scored
by the kernel that scores stored tokens. Adding a page appends, deleting drops, a filter skips. Not here: exact scores.
"""

from __future__ import annotations

from copy import copy as shallow
from typing import Any

import numpy as np

from index import native
from index.candidates import Queries, Source
from index.codec import encode
from index.pooling import pool_rows
from index.ragged import Ragged, check_offsets, offsets_of, picked

ROWS = 32  # a page, at most (benchmarks/LOG.md)
_PAGES = 128  # read at a time


class Rows:
    """Rows of n pages. ids: (n,) int64, rising; rows: (R, d) int8, those of page i from offsets[i] on; scales: (R,)
    float16, what a step of each row is worth."""

    kind = "rows"

    def __init__(self, dim: int) -> None:
        self.ids, self.offsets = np.zeros(0, np.int64), np.zeros(1, np.int64)
        self.rows, self.scales = np.zeros((0, dim), np.int8), np.zeros(0, np.float16)

    def search(self, queries: Queries, n: int, allow: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """The n pages of largest MaxSim with their rows, by 8-bit queries, ties by id; -inf for a page of no tokens."""
        at = np.arange(len(self.ids))
        if allow is not None:
            at = np.flatnonzero(np.isin(self.ids, allow, assume_unique=True))
        first, lengths = self.offsets[at], np.diff(self.offsets)[at]
        rows, scales = (
            np.uint64(array.ctypes.data) + (first * array.strides[0]).astype(np.uint64)
            for array in (self.rows, self.scales)
        )
        threads, dim = native.default_threads(), self.rows.shape[1]
        scores = native.maxsim(queries.tokens, rows, lengths, "int8", dim, scales, "int8", threads)
        found = []
        for score in np.asarray(scores):
            best = largest(score, n)
            best = best[np.lexsort((best, -score[best]))]
            found.append((score[best], self.ids[at[best]]))
        return found

    def update(self, ids: np.ndarray, source: Source) -> bool:
        """Hold just `ids`, pooling the pages that are missing."""
        new = np.setdiff1d(ids, self.ids)
        if not len(new) and len(ids) == len(self.ids):
            return False
        self._take(np.flatnonzero(np.isin(self.ids, ids, assume_unique=True)))
        parts, scales, lengths = [self.rows], [self.scales], [np.diff(self.offsets)]
        for start in range(0, len(new), _PAGES):
            pooled = [pool_rows(page, ROWS) for page in source.vectors(new[start : start + _PAGES])]
            pages = Ragged.of(pooled)
            values, steps = encode(pages.values, "int8")
            assert steps is not None
            parts.append(values)
            scales.append(steps)
            lengths.append(pages.lengths)
        self.ids, self.offsets = np.concatenate([self.ids, new]), offsets_of(np.concatenate(lengths))
        self.rows, self.scales = np.concatenate(parts), np.concatenate(scales)
        if (np.diff(self.ids) < 0).any():
            self._take(np.argsort(self.ids))
        return True

    def remove(self, ids: np.ndarray) -> None:
        """Forget pages."""
        if len(ids):
            self._take(np.flatnonzero(~np.isin(self.ids, ids)))

    def copy(self) -> Rows:
        """A second one with the same pages."""
        return shallow(self)  # arrays are replaced, never changed

    def _take(self, pages: np.ndarray) -> None:
        at, offsets = picked(self.offsets, pages)
        self.ids, self.rows, self.scales, self.offsets = self.ids[pages], self.rows[at], self.scales[at], offsets

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All that a later process needs."""
        return {}, {name: getattr(self, name) for name in ("ids", "offsets", "rows", "scales")}

    @classmethod
    def restored(cls, dim: int, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Rows:
        """From what `state` gave. Raises ValueError where it does not fit."""
        made = cls(dim)
        made.ids, made.offsets = arrays["ids"], arrays["offsets"]
        made.rows, made.scales = arrays["rows"], arrays["scales"]
        check_offsets(made.offsets, len(made.rows))
        fits = made.rows.shape[1:] == (dim,) and made.scales.shape == (len(made.rows),)
        fits = fits and (made.rows.dtype, made.scales.dtype) == (np.int8, np.float16)
        fits = fits and len(made.offsets) == len(made.ids) + 1 and bool(np.isfinite(made.scales).all())
        if not fits or (np.diff(made.ids) <= 0).any():
            raise ValueError("ids and rows do not fit")
        return made


def largest(scores: np.ndarray, n: int) -> np.ndarray:
    """Rows of the n largest, rising; of equals the first."""
    if n >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    kept = scores > least
    kept[np.flatnonzero(scores == least)[: n - np.count_nonzero(kept)]] = True
    return np.flatnonzero(kept)
