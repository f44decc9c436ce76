"""Token vectors <-> the bytes that are stored, as pure functions of arrays.

    fp16    each component as a half
    int8    round(x / s), s a scale a token: its largest magnitude / 127; symmetric in [-127, 127]
    int4    of the rotated vector, s (nibble - 8), nibbles 1 to 15: byte j holds component j in its low nibble and
            component j + d/2 in its high one
    binary  s where a component is >= 0, -s where not, s their mean magnitude: bit k % 8 of byte k // 8 is component k

int4 and binary encode what is left of a vector when `centre` is taken away, the mean token of the index: page tokens
share most of it, and codes this coarse would be spent on that. The centre adds one number to every score of a query
token. The rotation of int4 is a fixed orthogonal matrix that spreads outlying components over all. What each of this
is worth: benchmarks/LOG.md. Bytes on disk are little-endian. Not here: where they go (store).
"""

from __future__ import annotations

import functools

import numpy as np

from index.errors import QueryError
from index.ragged import Codes

CODECS: dict[str, np.dtype] = {
    "fp16": np.dtype("<f2"),
    "int8": np.dtype("<i1"),
    "int4": np.dtype("<u1"),
    "binary": np.dtype("<u1"),
}
SCALED = ("int8", "int4", "binary")  # codecs that keep a scale a token
CENTRED = ("int4", "binary")  # codecs of vectors without their centre
PACKED = {"int4": 2, "binary": 8}  # components that share a byte
CLIP = 0.85  # share of a rotated token's largest magnitude that int4 reaches to: a finer step for all others
HALF_MAX = 65_504


def check_dim(codec: str, dim: int) -> None:
    """Raise QueryError, a ValueError too, unless vectors of `dim` components can be stored in a codec."""
    if codec not in CODECS:
        raise QueryError(f"codec is one of {', '.join(CODECS)}; got {codec!r}")
    if dim < 1 or dim % PACKED.get(codec, 1):
        raise QueryError(f"{codec} packs {PACKED.get(codec, 1)} components into a byte; {dim} do not divide by that")


def width(codec: str, dim: int) -> int:
    """Elements, of the codec's type, that a token of `dim` components is stored in."""
    return dim // PACKED.get(codec, 1)


def encode(vectors: np.ndarray, codec: str, centre: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """(T, d) float -> codes (T, w) and scales (T,) float16 or None. centre: (d,), for a codec in CENTRED.

    Raises ValueError for an unknown codec, a dimension that does not fit it, and for a component that is not finite or
    that a half cannot hold.
    """
    check_dim(codec, vectors.shape[1])
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(vectors, np.float32)
    _check_range(vectors)
    if codec == "fp16":
        return vectors.astype("<f2"), None
    if codec == "int8":
        scales = _half_up(_largest(vectors) / 127)
        return np.clip(_steps(vectors, scales.astype(np.float32)), -127, 127).astype("<i1"), scales
    vectors = rotated(vectors if centre is None else vectors - centre, codec)
    if codec == "binary":
        means = np.abs(vectors).mean(axis=1) if vectors.size else np.zeros(len(vectors), np.float32)
        return np.packbits(vectors >= 0, axis=1, bitorder="little"), _half(means)
    steps = np.clip(_steps(vectors, _largest(vectors) * np.float32(CLIP / 7)), -7, 7)
    norms = np.einsum("ij,ij->i", steps, steps)
    fitted = np.divide(np.einsum("ij,ij->i", steps, vectors), norms, out=np.zeros_like(norms), where=norms > 0)
    low, high = np.split((steps + 8).astype("<u1"), 2, axis=1)
    return low | high << 4, _half(fitted)


def decode(codes: Codes) -> np.ndarray:
    """Codes -> (T, d) float32."""
    values = codes.values
    if codes.codec == "int4":
        values = np.concatenate([values & 15, values >> 4], axis=1).astype(np.float32) - 8
    elif codes.codec == "binary":
        values = np.unpackbits(values, axis=1, bitorder="little").astype(np.float32) * 2 - 1
    vectors = values.astype(np.float32)
    if codes.scales is not None:
        vectors *= codes.scales.astype(np.float32)[:, None]
    if codes.codec == "int4":
        vectors = vectors @ _rotation(vectors.shape[1])
    return vectors if codes.centre is None else vectors + codes.centre


def rotated(vectors: np.ndarray, codec: str) -> np.ndarray:
    """(m, d) vectors in the space of a codec's codes: q . v = rotated(q) . code + q . centre."""
    return vectors @ _rotation(vectors.shape[1]).T if codec == "int4" else vectors


@functools.cache
def _rotation(dim: int) -> np.ndarray:
    """(d, d) float32, orthogonal: a cosine transform (DCT-II) of components with random signs.

    The same on every machine but for the last bit of a cosine: the signs are raw bits of PCG64 with a constant seed.
    """
    frequency, place = np.arange(dim)[:, None], np.arange(dim)
    matrix = np.cos(np.pi * frequency * (place + 0.5) / dim) * np.sqrt(2 / dim)
    matrix[0] /= np.sqrt(2)
    signs = np.where(np.random.PCG64(4).random_raw(dim) >> np.uint64(63), 1, -1)
    return (matrix * signs).astype(np.float32)


def _largest(vectors: np.ndarray) -> np.ndarray:
    return np.abs(vectors).max(axis=1, initial=0.0) if vectors.size else np.zeros(len(vectors), np.float32)


def _check_range(vectors: np.ndarray) -> None:
    largest = _largest(vectors)
    if not np.isfinite(largest).all() or (largest > HALF_MAX).any():
        raise ValueError(f"token vectors must be finite and within half precision ({HALF_MAX:,})")


def _steps(vectors: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Each vector in whole steps of its own length, (T, d) float32; zeros where that is 0."""
    steps = steps[:, None]
    return np.rint(np.divide(vectors, steps, out=np.zeros_like(vectors), where=steps > 0))


def _half(scales: np.ndarray) -> np.ndarray:
    """To the nearest half; scales too large for that have all come from vectors at the edge of the range."""
    return np.minimum(scales, HALF_MAX).astype("<f2")


def _half_up(scales: np.ndarray) -> np.ndarray:
    """To half precision, never below the value: a scale rounded down would clip the largest component."""
    halves = scales.astype("<f2")
    low = halves.astype(np.float32) < scales
    halves[low] = np.nextafter(halves[low], np.float16(np.inf))
    return halves
