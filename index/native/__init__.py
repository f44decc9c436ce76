"""MaxSim over stored codes and what scans centroid codes: compiled kernels or, where none was built, their twins.

Pages are given by the addresses of their rows, so what is scored may lie in mapped shards; similarities are never
stored, and rows of any codec are read as they are. Which instruction set answers is chosen when this is imported: the
best of the processor, or the one named by OCTAVO_KERNELS (portable, avx2, avx512, neon; numpy for the twins).
Sizes are checked here; that addresses are those of living memory is the caller's part.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from pathlib import Path

import numpy as np

from index.native import twin
from index.ragged import Ragged

CODECS = ("fp32", "fp16", "int8", "int4", "binary")
PRECISIONS = {"fp32": CODECS, "int8": ("int8", "int4"), "binary": ("binary",)}
LANES = 32  # query tokens in a table of the scan
_VERSION = 4
_FAILURES = {
    1: "this processor lacks that instruction set",
    2: "no kernel for that codec and precision of the query",
    3: "out of memory",
    4: "a centroid code lies outside of the table, or offsets do not rise within the codes",
}


def _load() -> ctypes.CDLL | None:
    """The compiled library, or None where none was built, or another version's was left."""
    for path in sorted(Path(__file__).parent.glob("kernels*.so")):
        try:
            library = ctypes.CDLL(str(path))
            if library.octavo_version() == _VERSION:
                library.octavo_set.restype = ctypes.c_char_p
                return library
        except (OSError, AttributeError):
            continue
    return None


_library = _load()


def instruction_sets() -> list[str]:
    """Those that this build has and this processor can run, best last; none without a compiled library."""
    if _library is None:
        return []
    names: list[str] = []
    while (name := _library.octavo_set(len(names))) is not None:
        names.append(name.decode())
    return names


_SETS = instruction_sets()


def available() -> str | None:
    """The instruction set that runs where none is named, or None where the numpy twins do."""
    named = os.environ.get("OCTAVO_KERNELS")
    if named == "numpy" or not _SETS:
        return None
    if named and named not in _SETS:
        raise ValueError(f"OCTAVO_KERNELS={named}: this machine has {', '.join(filter(None, _SETS))} and numpy")
    return named or [name for name in _SETS if name][-1]


def default_threads() -> int:
    """How many threads to use where nobody says: torch's setting where torch is loaded, else 1."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 1


def maxsim(
    queries: Ragged,
    addresses: np.ndarray,
    lengths: np.ndarray,
    codec: str,
    dim: int,
    scales: np.ndarray | None = None,
    query: str = "fp32",
    threads: int = 1,
    argmax: bool = False,
    isa: str | None = None,
    promise: np.ndarray | None = None,
    k: int = 1,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """MaxSim of b queries with n pages where they lie: (b, n) float32, -inf for a page of no rows.

    queries: (M, dim) float tokens; addresses: (n,) uint64 of each page's first row; lengths: (n,) rows; scales: (n,)
    uint64 addresses of each page's (t,) float16, needed by int8, int4 and binary. Rows are `dim` float32, float16 or
    int8; int4 holds component j in the low and j + dim / 2 in the high half of byte j, 8 above its value; binary holds
    component k >= 0 as bit k % 8 of byte k // 8. query: precision that the query is brought to, fp32, int8 (for int8
    and int4 rows: scores within 5e-3) or binary (for binary rows). argmax: also give (n, M) int32, the row that won
    for each query token, the first of equals, -1 for a page of no rows. isa: instruction set, else `available()`.
    promise: (n,) scores that a first stage gave, falling, where the k best of one query are wanted: pages are scored
    RUN at a time, until by the line through scores over promises the next one is expected PATIENCE deviations below
    the k-th best so far; the scores are of the pages before it alone. Raises ValueError for shapes that do not agree,
    MemoryError.
    """
    tokens, offsets = _tokens(queries, dim)
    addresses, lengths = _vector(addresses, np.uint64, "addresses"), _vector(lengths, np.int64, "lengths")
    _check(codec, dim, query)
    if len(addresses) != len(lengths) or (lengths < 0).any() or (lengths >= 2**31).any():
        raise ValueError(
            f"addresses and lengths must be of one size and none negative; got {len(addresses)} and {len(lengths)}"
        )
    if codec not in ("fp32", "fp16"):
        if scales is None:
            raise ValueError(f"{codec} needs the addresses of its scales")
        scales = _vector(scales, np.uint64, "scales")
        if len(scales) != len(lengths):
            raise ValueError(f"{len(scales)} addresses of scales for {len(lengths)} pages")
    filled = lengths > 0
    if not addresses[filled].all() or (scales is not None and not scales[filled].all()):
        raise ValueError("a page with rows has the address 0")
    chosen = isa or available()
    if promise is not None:
        promise = _vector(promise, np.float32, "promise")
        if len(promise) != len(lengths) or len(offsets) != 2 or argmax or k < 1:
            raise ValueError(
                f"promise needs one query, k of 1 or more, no argmax and a score for each page; got {len(offsets) - 1} "
                f"queries, k {k}, {len(promise)} scores for {len(lengths)} pages"
            )
    if chosen is None:
        return twin.maxsim(queries, addresses, lengths, codec, dim, scales, query, threads, argmax, promise, k)
    scored = ctypes.c_int64()
    scores = np.empty((len(offsets) - 1, len(lengths)), np.float32)
    winners = np.empty((len(lengths), len(tokens)), np.int32) if argmax else None
    _call(
        "octavo_maxsim", _set(chosen), ctypes.c_int32(CODECS.index(codec)),
        ctypes.c_int32(list(PRECISIONS).index(query)), ctypes.c_int32(threads), _at(tokens), _at(offsets),
        _size(len(offsets) - 1), _size(dim), _at(addresses),
        _at(lengths), _at(scales), _size(len(lengths)), _at(scores), _at(winners),
        _at(promise), _size(k), _size(twin.RUN), ctypes.c_double(twin.PATIENCE), ctypes.byref(scored),
    )  # fmt: skip
    return scores[:, : scored.value] if winners is None else (scores, winners)


def tables(query: np.ndarray, rows: np.ndarray, scales: np.ndarray, isa: str | None = None) -> np.ndarray:
    """A query (m, d) as tables of bytes for `scan`: (ceil(m / 32), K, 32), zeros where there are fewer tokens.

    rows: (K, d) int8 centroids and scales (K,) float16, as the codec makes them. A byte spans the same similarity for
    every token, from what centroids reach in the mean to the best of them. Raises ValueError for shapes that do not
    agree.
    """
    query = np.ascontiguousarray(query, np.float32)
    rows, scales = np.ascontiguousarray(rows, np.int8), np.ascontiguousarray(scales, "<f2")
    if query.ndim != 2 or rows.ndim != 2 or query.shape[1] != rows.shape[1] or scales.shape != (len(rows),):
        raise ValueError(f"query, rows and scales do not agree: {query.shape}, {rows.shape}, {scales.shape}")
    chosen = isa or available()
    if chosen is None or not len(rows):
        return twin.tables(query, rows, scales)
    made = _aligned((-(-len(query) // LANES), len(rows), LANES))
    _call(
        "octavo_tables", _set(chosen), _at(query), _size(len(query)), _size(query.shape[1]), _at(rows), _at(scales),
        _size(len(rows)), _at(made),
    )  # fmt: skip
    return made


def select(
    sums: np.ndarray,
    vector: np.ndarray,
    halves: np.ndarray,
    rows: np.ndarray | None,
    shortlist: int,
    n: int,
    weight: float,
    threads: int = 1,
    isa: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The n best pages of a scan: places (n',) int64 among those scanned, best first, ties by place, and their scores.

    sums: (n,) uint32 that `scan` gave for `rows`; halves: (N, d) float16, a mean for every page; vector: (d,). Of the
    `shortlist` largest sums (of equals the first) a page's score is its sum plus `weight` times the inner product of
    its mean with the vector, each standardised over the shortlist. Raises ValueError for shapes that do not agree.
    """
    sums, vector = _vector(sums, np.uint32, "sums"), np.ascontiguousarray(vector, np.float32)
    halves = np.ascontiguousarray(halves, "<f2")
    rows = None if rows is None else _rows(rows, len(halves))
    if halves.shape[1:] != vector.shape or len(sums) != len(halves if rows is None else rows) or min(shortlist, n) < 0:
        raise ValueError(f"sums, vector and halves do not agree: {sums.shape}, {vector.shape}, {halves.shape}")
    chosen = isa or available()
    if chosen is None:
        return twin.select(sums, vector, halves, rows, shortlist, n, weight)
    best = min(n, shortlist, len(sums))
    places, scores = np.empty(best, np.int64), np.empty(best, np.float32)
    _call(
        "octavo_select", _set(chosen), ctypes.c_int32(threads), _at(sums), _size(len(sums)), _at(vector),
        _size(len(vector)), _at(halves), _at(rows), _size(shortlist), _size(n), ctypes.c_float(weight), _at(places),
        _at(scores),
    )  # fmt: skip
    return places, scores


def scan(
    table: np.ndarray,
    codes: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray | None = None,
    threads: int = 1,
    isa: str | None = None,
) -> np.ndarray:
    """Sum over up to 32 query tokens of the largest table entry among a page's codes: (n,) uint32, 0 without codes.

    table: (K, 32) uint8, a row for each centroid, zeros where there are fewer query tokens; codes: (T,) uint16;
    offsets: (n + 1,); rows: (n',) the pages to scan, else all. Raises ValueError for shapes that do not agree, for
    offsets that do not rise within the codes and for a code of K or more.
    """
    codes, offsets = _vector(codes, np.uint16, "codes"), _vector(offsets, np.int64, "offsets")
    if table.dtype != np.uint8 or table.ndim != 2 or table.shape[1] != LANES:
        raise ValueError(f"the table must be (K, {LANES}) uint8; got {table.shape} {table.dtype}")
    rows = None if rows is None else _rows(rows, len(offsets) - 1)
    chosen = isa or available()
    if chosen is None:
        return twin.scan(table, codes, offsets, rows)
    table = np.ascontiguousarray(table)
    sums = np.empty(len(offsets) - 1 if rows is None else len(rows), np.uint32)
    _call(
        "octavo_scan", _set(chosen), ctypes.c_int32(threads), _at(table), _size(len(table)), _at(codes),
        _size(len(codes)), _at(offsets), _at(rows), _size(len(sums)), _at(sums),
    )  # fmt: skip
    return sums


def _tokens(queries: Ragged, dim: int) -> tuple[np.ndarray, np.ndarray]:
    if queries.values.ndim != 2 or queries.values.shape[1] != dim:
        raise ValueError(f"query tokens must be (M, {dim}); got {queries.values.shape}")
    return np.ascontiguousarray(queries.values, np.float32), np.ascontiguousarray(queries.offsets, np.int64)


def _check(codec: str, dim: int, query: str) -> None:
    if codec not in CODECS:
        raise ValueError(f"codec must be one of {', '.join(CODECS)}; got {codec!r}")
    if codec not in PRECISIONS.get(query, ()):
        raise ValueError(f"query must be fp32, int8 (for int8, int4) or binary (for binary); got {query!r} for {codec}")
    whole = {"int4": 2, "binary": 8}.get(codec, 1)
    if dim < 1 or dim % whole:
        raise ValueError(f"{codec} needs a dimension that is a multiple of {whole}; got {dim}")


def _vector(array: np.ndarray, kind: np.dtype | type, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 1 or not np.can_cast(array.dtype, kind, "same_kind"):
        raise ValueError(f"{name} must be a vector of {np.dtype(kind)}; got {array.shape} {array.dtype}")
    return np.ascontiguousarray(array, kind)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Bytes of which no 32 straddle two cache lines, which costs the scan a third."""
    memory = np.empty(math.prod(shape) + LANES, np.uint8)
    first = -memory.ctypes.data % LANES
    return memory[first : first + math.prod(shape)].reshape(shape)


def _rows(rows: np.ndarray, pages: int) -> np.ndarray:
    rows = _vector(rows, np.int64, "rows")
    if len(rows) and (rows.min() < 0 or rows.max() >= pages):
        raise ValueError(f"rows must lie within the {pages} pages; got {rows.min()} to {rows.max()}")
    return rows


def _set(name: str) -> ctypes.c_int32:
    if name not in _SETS:
        raise ValueError(f"no kernels for {name!r} here; there are {', '.join(filter(None, _SETS)) or 'none'}")
    return ctypes.c_int32(_SETS.index(name))


def _at(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _size(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


def _call(name: str, *arguments: object) -> None:
    assert _library is not None
    failure = getattr(_library, name)(*arguments)
    if failure == 3:
        raise MemoryError(_FAILURES[3])
    if failure:
        raise ValueError(_FAILURES[failure])
