"""Token vectors -> the nearest of K centroids: training, and codes.

A token stands for its centroid (PLAID, Santhanam et al. 2022, section 3.2). K spherical centroids are trained by
Lloyd's k-means on a sample. Not here: which pages have which codes, and their scan (index.scan).
"""

from __future__ import annotations

import numpy as np

from index import native
from index.codec import encode
from index.ragged import Ragged

MOST = 4096
SAMPLE = 24  # tokens a centroid that training looks at
ITERATIONS = 6
_CHUNK = 8192


def count(tokens: int) -> int:
    """How many centroids a corpus of so many tokens gets: a power of two, from 16 to MOST."""
    return min(max(1 << max(tokens // SAMPLE, 1).bit_length() - 1, 16), MOST)


def train(sample: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k centroids (k, d) float32 of norm 1 for a sample (s, d) of tokens; the same for the same sample and seed."""
    rng = np.random.default_rng(seed)
    sample = _unit(np.asarray(sample, np.float32))
    centroids = sample[rng.choice(len(sample), k, replace=len(sample) < k)]
    for _ in range(ITERATIONS):
        codes, _ = assign(sample, centroids)
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        centroids[present] = np.add.reduceat(sample[order], starts, axis=0)
        empty = np.setdiff1d(np.arange(k), present)
        centroids[empty] = sample[rng.choice(len(sample), len(empty))]
        centroids = _unit(centroids)
    return centroids


def assign(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (T,) uint16 of the centroids of largest inner product with vectors (T, d), and those products (T,).

    It is MaxSim of the tokens with one page of K centroids, both in 8 bits, whose winners are looked at.
    """
    rows, scales = encode(centroids, "int8")
    assert scales is not None
    places = [np.array([array.ctypes.data], np.uint64) for array in (rows, scales)]
    codes, products = np.empty(len(vectors), np.uint16), np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _CHUNK):
        chunk = np.asarray(vectors[start : start + _CHUNK], np.float32)
        tokens = Ragged(chunk, np.array([0, len(chunk)]))
        size = np.array([len(rows)])
        _, winners = native.maxsim(tokens, places[0], size, "int8", rows.shape[1], places[1], "int8", argmax=True)
        codes[start : start + _CHUNK] = winners[0]
        products[start : start + _CHUNK] = np.einsum("td,td->t", chunk, centroids[winners[0]])
    return codes, products


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
