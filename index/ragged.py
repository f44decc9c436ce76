"""Rows of unequal length: `Ragged` for vectors, `Codes` for what a codec made of them, `Views` for codes in place.

n groups (pages, or queries) of t_i rows each lie one after another in one array of T rows, and `offsets` says where
each begins; a `Views` instead says where in memory the rows of each page lie, as in mapped shards, and copies nothing.
Nothing is ever padded, so no score depends on what else is in the batch. Not here: arithmetic, storage.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class Ragged:
    """values: (T, d) float; offsets: (n + 1,) int64, rising from 0 to T. Group i is values[offsets[i]:offsets[i + 1]].

    >>> r = Ragged.of([np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32)])
    >>> len(r), r.lengths.tolist(), r[1].shape
    (2, [2, 0], (0, 3))
    """

    values: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        check_offsets(self.offsets, len(self.values))

    @classmethod
    def of(cls, groups: Sequence[np.ndarray], dim: int | None = None) -> Ragged:
        """Join groups of (t_i, d) into one. dim: d, needed only where there is no group."""
        values = np.concatenate(groups) if len(groups) else np.zeros((0, dim or 0), np.float32)
        return cls(np.ascontiguousarray(values), offsets_of([len(group) for group in groups]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class Codes:
    """Encoded rows of n pages. values: (T, w), what `codec` made of (T, d); scales: (T,) float16, or None for a codec
    without; centre: (d,) float32 that was taken away from each vector before, or None; offsets as in `Ragged`."""

    values: np.ndarray
    offsets: np.ndarray
    codec: str
    scales: np.ndarray | None = None
    centre: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_offsets(self.offsets, len(self.values))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class Views:
    """Encoded rows of n pages where they lie. addresses: (n,) uint64 of each page's first row; lengths: (n,) int64
    rows; width: of a row, in elements of `kind`; scales: (n,) uint64 addresses of (t,) float16, or None; dim: d of
    the vectors; owner: what must live as long as this is used; centre: as in `Codes`. A page of no rows may have any
    address."""

    addresses: np.ndarray
    lengths: np.ndarray
    codec: str
    dim: int
    width: int
    kind: np.dtype
    scales: np.ndarray | None = None
    owner: object = field(default=None, repr=False)
    centre: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, pages: slice | np.ndarray) -> Views:
        """Some of the pages."""
        scales = None if self.scales is None else self.scales[pages]
        return replace(self, addresses=self.addresses[pages], lengths=self.lengths[pages], scales=scales)

    def codes(self) -> Codes:
        """A copy of the rows, one page after another."""
        offsets = offsets_of(self.lengths)
        values = np.empty((offsets[-1], self.width), self.kind)
        scales = None if self.scales is None else np.empty(offsets[-1], "<f2")
        for i in np.flatnonzero(self.lengths):
            rows = slice(offsets[i], offsets[i + 1])
            ctypes.memmove(values[rows].ctypes.data, int(self.addresses[i]), values[rows].nbytes)
            if scales is not None and self.scales is not None:
                ctypes.memmove(scales[rows].ctypes.data, int(self.scales[i]), scales[rows].nbytes)
        return Codes(values, offsets, self.codec, scales, self.centre)


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n,) lengths -> (n + 1,) int64 offsets.

    >>> offsets_of([2, 0, 3]).tolist()
    [0, 2, 2, 5]
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def picked(offsets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of some groups, one group after another, and the offsets that these have then.

    >>> [array.tolist() for array in picked(np.array([0, 2, 2, 5]), np.array([2, 0]))]
    [[2, 3, 4, 0, 1], [0, 3, 5]]
    """
    lengths = np.diff(offsets)[groups]
    taken = offsets_of(lengths)
    return np.repeat(offsets[groups] - taken[:-1], lengths) + np.arange(taken[-1]), taken


def check_offsets(offsets: np.ndarray, rows: int) -> None:
    """Raise ValueError unless offsets rise from 0 to `rows`."""
    if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must rise from 0 to the {rows} rows; got {offsets[:4]}...{offsets[-1:]}")
