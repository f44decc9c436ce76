"""Token vectors <-> the bytes that are stored, as pure functions of arrays.

`fp16` keeps each component as a half; `int8` keeps round(127 x / s) with one scale s / 127 a token, s the largest
magnitude of the token, symmetric in [-127, 127]. Bytes on disk are little-endian. Not here: where they go (store).
"""

from __future__ import annotations

import numpy as np

from index.ragged import Codes

CODECS: dict[str, np.dtype] = {"fp16": np.dtype("<f2"), "int8": np.dtype("<i1")}
SCALED = ("int8",)  # codecs that keep a scale a token


def width(codec: str, dim: int) -> int:
    """Elements, of the codec's type, that a token of `dim` components is stored in."""
    return dim


def encode(vectors: np.ndarray, codec: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(T, d) float -> codes (T, d) and scales (T,) float16 or None.

    Raises ValueError for an unknown codec, and for a component that is not finite or that a half cannot hold.
    """
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(vectors, np.float32)
    largest = np.abs(vectors).max(axis=1, initial=0.0) if vectors.size else np.zeros(len(vectors), np.float32)
    if not np.isfinite(largest).all() or (largest > 65_504).any():
        raise ValueError("token vectors must be finite and within half precision (65,504)")
    if codec == "fp16":
        return vectors.astype("<f2"), None
    if codec == "int8":
        scales = _half_up(largest / 127)
        steps = scales.astype(np.float32)[:, None]
        scaled = np.divide(vectors, steps, out=np.zeros_like(vectors), where=steps > 0)
        return np.clip(np.rint(scaled), -127, 127).astype("<i1"), scales
    raise ValueError(f"codec must be one of {', '.join(CODECS)}; got {codec!r}")


def decode(codes: Codes) -> np.ndarray:
    """Codes -> (T, d) float32."""
    values = codes.values.astype(np.float32)
    if codes.scales is not None:
        values *= codes.scales.astype(np.float32)[:, None]
    return values


def _half_up(scales: np.ndarray) -> np.ndarray:
    """To half precision, never below the value: a scale rounded down would clip the largest component."""
    halves = scales.astype("<f2")
    low = halves.astype(np.float32) < scales
    halves[low] = np.nextafter(halves[low], np.float16(np.inf))
    return halves
