"""A page's token vectors -> the one vector that the first stage looks at."""

from __future__ import annotations

import numpy as np


def pool_mean(vectors: np.ndarray) -> np.ndarray:
    """(t, d) -> (d,) float32: the normalised mean; zeros where there is no token or the mean vanishes.

    Rows keep their norm, so a weighted query is pooled by its weights.
    """
    vectors = np.asarray(vectors, np.float32)
    mean = vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1], np.float32)
    norm = float(np.linalg.norm(mean))
    return mean / norm if norm > 1e-12 else np.zeros_like(mean)
