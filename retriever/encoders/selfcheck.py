"""Does a model that was just loaded work? Two queries and two pictures, each alone and together.

A damaged file, a dtype that overflows, weights that were never loaded: all have been published, and all show here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from index.errors import OctavoError
from ingest.page import Page, Words

QUERIES = ["a", "How much did the revenue of the northern region grow in 2023?"]
LIMITS = {4: 1e-4, 2: 0.1, 8: 1e-4}  # bytes of a weight -> what rounding may change in a vector of norm 1


def self_check(encoder: Any, weight_bytes: int, source: str) -> None:
    """Raise OctavoError unless vectors are finite, of norm 1, not all alike, and the same whatever shares a batch."""
    limit = LIMITS[weight_bytes]
    lines = [Words(text.split(), np.zeros((len(text.split()), 4), np.float32)) for text in QUERIES]
    pages = [Page(1, image, words, 72.0, 72.0) for image, words in zip(pictures(), lines, strict=True)]
    found: dict[str, Any] = {
        "queries": (encoder.encode_queries(QUERIES), [encoder.encode_queries([text])[0] for text in QUERIES]),
        "pages": tuple(
            [token.vectors for token in tokens]
            for tokens in (encoder.encode_pages(pages), [encoder.encode_pages([page])[0] for page in pages])
        ),
    }
    if encoder.single_dim is not None:
        found["single vectors"] = (
            list(encoder.encode_queries_single(QUERIES)),
            [encoder.encode_queries_single([text])[0] for text in QUERIES],
        )
    for what, (together, alone) in found.items():
        _check(what, together, alone, limit, source, getattr(encoder, "unit_norm", True))


def _check(
    what: str, together: list[np.ndarray], alone: list[np.ndarray], limit: float, source: str, unit: bool
) -> None:
    for batched, single in zip(together, alone, strict=True):
        if not (np.isfinite(batched).all() and np.isfinite(single).all()):
            raise OctavoError(f"{source}: the vectors of {what} are not finite; try dtype='float32'")
        if unit and abs(np.linalg.norm(single, axis=-1) - 1).max() > 1e-3:
            raise OctavoError(f"{source}: the vectors of {what} are not of norm 1; are the weights damaged?")
        if batched.shape != single.shape or abs(batched - single).max() > limit:
            raise OctavoError(f"{source}: the vectors of {what} depend on what else is in the batch")
    ends = [vectors[-1] if vectors.ndim > 1 else vectors for vectors in alone]
    if abs(ends[0] - ends[1]).max() < 1e-6:
        raise OctavoError(f"{source}: the vectors of {what} are all alike; are the weights damaged?")


def pictures() -> list[np.ndarray]:
    """Two small pictures, (H, W, 3) uint8: a slope, and a chequered one."""
    slope = np.linspace(0, 255, 112 * 84 * 3).reshape(112, 84, 3).astype(np.uint8)
    chequered = (np.indices((84, 112)).sum(axis=0) // 9 % 2 * 200).astype(np.uint8)
    return [slope, np.repeat(chequered[..., None], 3, axis=2)]
