"""The native kernels in numpy: the reference that they are tested against, and what answers where none was compiled.

Each function has the signature of its namesake in `index.native` and gives the same values, a page at a time, so that
no similarity matrix of the whole store is made. Not here: what to do with the scores.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from index.ragged import Ragged, check_offsets

RUN, PATIENCE = 32, 3.25  # of a search by promise: see index.native.maxsim and benchmarks/LOG.md


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
    promise: np.ndarray | None = None,
    k: int = 1,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """See index.native.maxsim."""
    tokens = rounded(np.ascontiguousarray(queries.values, np.float32), query)

    def page(i: int) -> np.ndarray:
        rows = _at(addresses[i], int(lengths[i]) * row_bytes(codec, dim)).reshape(int(lengths[i]), -1)
        scale = None if scales is None else _at(scales[i], 2 * int(lengths[i])).view("<f2")
        return decoded(rows, codec, dim, scale)

    lengths = np.asarray(lengths, np.int64)

    def scored(first: int, last: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        return _score(queries.offsets, lengths[first:last], lambda i: tokens @ page(first + i).T, len(tokens), argmax)

    if promise is None:
        return scored(0, len(lengths))
    scores = np.zeros((1, 0), np.float32)
    while (done := scores.shape[1]) < len(lengths) and not (done and _hopeless(promise, scores[0], k)):
        scores = np.concatenate([scores, np.asarray(scored(done, done + RUN))], axis=1)
    return scores


def _hopeless(promise: np.ndarray, scores: np.ndarray, k: int) -> bool:
    """Whether the first page without a score, and so any later one, is not worth a look."""
    real = np.isfinite(scores)
    got, given = scores[real].astype(np.float64), promise[: len(scores)][real].astype(np.float64)
    if len(got) < k or not np.ptp(given):
        return False
    x = given - given.mean()
    slope = x @ got / (x @ x)
    expected = got.mean() + slope * (float(promise[len(scores)]) - given.mean())
    deviation = float(np.std(got - slope * x))
    return bool(expected + PATIENCE * deviation < np.partition(got, -k)[-k])


def scan(
    table: np.ndarray, codes: np.ndarray, offsets: np.ndarray, rows: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """See index.native.scan."""
    wanted = np.arange(len(offsets) - 1) if rows is None else rows
    check_offsets(offsets, len(codes))
    if len(codes) and codes.max() >= len(table):
        raise ValueError("a centroid code lies outside of the table")
    sums = np.zeros(len(wanted), np.uint32)
    for place, row in enumerate(wanted):
        if offsets[row] < offsets[row + 1]:
            best = table[codes[offsets[row] : offsets[row + 1]]].max(axis=0)
            sums[place] = best.sum(dtype=np.uint32)
    return sums


def tables(query: np.ndarray, rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """See index.native.tables."""
    similarity = decoded(rows.view(np.uint8), "int8", rows.shape[1], scales) @ query.T
    made = np.zeros((-(-len(query) // 32), len(rows), 32), np.uint8)
    if similarity.size:
        high = similarity.max(axis=0)
        span = max(float((high - similarity.mean(axis=0)).max()), 1e-9)
        codes = np.clip((similarity - high) * np.float32(255 / span) + np.float32(255.5), 0, 255).astype(np.uint8)
        for block, start in zip(made, range(0, len(query), 32), strict=True):
            part = codes[:, start : start + 32]
            block[:, : part.shape[1]] = part
    return made


def select(
    sums: np.ndarray,
    vector: np.ndarray,
    halves: np.ndarray,
    rows: np.ndarray | None,
    shortlist: int,
    n: int,
    weight: float,
) -> tuple[np.ndarray, np.ndarray]:
    """See index.native.select."""
    some = np.sort(np.argsort(-sums.astype(np.int64), kind="stable")[:shortlist])
    products = halves[some if rows is None else rows[some]].astype(np.float32) @ vector
    scores = (standardise(sums[some]) + weight * standardise(products)).astype(np.float32)
    best = np.argsort(-scores, kind="stable")[:n]
    return some[best], scores[best]


def standardise(scores: np.ndarray, among: slice | np.ndarray = slice(None)) -> np.ndarray:
    """(n,) -> (n,) float64, of which those at the places `among`, all if none are named, have mean 0 and deviation 1;
    zeros where these are alike."""
    scores = np.asarray(scores, np.float64)
    some = scores[among]
    deviation = some.std() if len(some) else 0.0
    return (scores - some.mean()) / deviation if deviation > 1e-9 else np.zeros(len(scores))


def row_bytes(codec: str, dim: int) -> int:
    """Bytes that one token of `dim` components is stored in."""
    return {"fp32": 4 * dim, "fp16": 2 * dim, "int8": dim, "int4": dim // 2, "binary": dim // 8}[codec]


def decoded(rows: np.ndarray, codec: str, dim: int, scales: np.ndarray | None) -> np.ndarray:
    """(t, bytes) uint8 -> (t, dim) float32."""
    rows = np.ascontiguousarray(rows)
    if codec in ("fp32", "fp16"):
        return rows.view("<f4" if codec == "fp32" else "<f2").reshape(len(rows), dim).astype(np.float32)
    if codec == "int8":
        values = rows.view(np.int8).astype(np.float32)
    elif codec == "int4":
        values = np.concatenate([rows & 15, rows >> 4], axis=1).astype(np.float32) - 8
    else:
        values = np.unpackbits(rows, axis=1, bitorder="little").astype(np.float32) * 2 - 1
    assert scales is not None, codec
    return values * scales.astype(np.float32)[:, None]


def rounded(tokens: np.ndarray, query: str) -> np.ndarray:
    """(m, d) query tokens as their precision leaves them: int8 keeps 127 steps either way of the token's largest
    component, binary the signs and the mean magnitude."""
    if query == "int8":
        steps = np.abs(tokens).max(axis=1, keepdims=True, initial=0.0) / 127
        return np.rint(np.divide(tokens, steps, out=np.zeros_like(tokens), where=steps > 0)) * steps
    if query == "binary":
        return np.where(tokens >= 0, np.float32(1), np.float32(-1)) * np.abs(tokens).mean(axis=1, keepdims=True)
    return tokens


def _at(address: int, count: int) -> np.ndarray:
    """A copy of `count` bytes of memory."""
    return np.frombuffer(ctypes.string_at(int(address), count), np.uint8) if count else np.zeros(0, np.uint8)


def _score(
    query_offsets: np.ndarray,
    lengths: np.ndarray,
    similarity: Callable[[int], np.ndarray],
    tokens: int,
    argmax: bool,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """similarity(i): (M, t) of the i-th page."""
    scores = np.full((len(query_offsets) - 1, len(lengths)), -np.inf, np.float32)
    winners = np.full((len(lengths), tokens), -1, np.int32)
    for i in np.flatnonzero(lengths):
        found = similarity(int(i))
        sums = np.concatenate([[0.0], np.cumsum(found.max(axis=1), dtype=np.float64)])
        scores[:, i] = sums[query_offsets[1:]] - sums[query_offsets[:-1]]
        winners[i] = found.argmax(axis=1)
    return (scores, winners) if argmax else scores
