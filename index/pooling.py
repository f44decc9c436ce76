"""A page's token vectors -> the one vector that the first stage looks at, or fewer token vectors that say as much.

`pool_mean` is their mean. `pool_tokens` merges tokens that are alike: hierarchical clustering by Ward's criterion on
the vectors themselves (token pooling: Clavie, Chaffin and Adams 2024, section 2), cut where the wanted number of
clusters is left, each of which becomes the mean of its members. `pool_rows` does so by k-means, in time that grows with
the tokens only: good enough to choose pages by. Pure functions of arrays.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 4  # of k-means of a page's tokens (benchmarks/LOG.md)
WARD_TOKENS = 2048  # more are pooled in parts, in reading order: time and memory grow with the square


def pool_mean(vectors: np.ndarray) -> np.ndarray:
    """(t, d) -> (d,) float32: the normalised mean; zeros where there is no token or the mean vanishes.

    Rows keep their norm, so a weighted query is pooled by its weights.
    """
    vectors = np.asarray(vectors, np.float32)
    mean = vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1], np.float32)
    norm = float(np.linalg.norm(mean))
    return mean / norm if norm > 1e-12 else np.zeros_like(mean)


def pool_tokens(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(t, d) -> (t', d) float32 with t' <= max(count, t / 2048), and the cluster (t,) int64 of each token.

    Clusters are in the order of their first token. A cluster's vector is the mean of its members, as long as they are
    on average.
    """
    vectors = np.asarray(vectors, np.float32)
    if len(vectors) <= count:
        return vectors, np.arange(len(vectors))
    parts = -(-len(vectors) // WARD_TOKENS)
    rows = np.linspace(0, len(vectors), parts + 1).astype(int)
    shares = np.maximum(np.diff(np.linspace(0, count, parts + 1).astype(int)), 1)
    labels = np.empty(len(vectors), np.int64)
    for begin, end, share in zip(rows[:-1], rows[1:], shares, strict=True):
        labels[begin:end] = _ward(vectors[begin:end], int(share)) + begin
    _, first, clusters = np.unique(labels, return_index=True, return_inverse=True)
    clusters = np.argsort(np.argsort(first))[clusters]
    return _means(vectors, clusters), clusters


def pool_rows(vectors: np.ndarray, count: int) -> np.ndarray:
    """(t, d) -> (r, d) float32 with r <= count: means, as in `pool_tokens`, of ROUNDS of spherical k-means that begins
    with equal runs of tokens in reading order; the same for the same tokens."""
    vectors = np.asarray(vectors, np.float32)
    if len(vectors) <= count:
        return vectors
    clusters = np.arange(len(vectors)) * count // len(vectors)
    for _ in range(ROUNDS):
        sums = (clusters == np.arange(count)[:, None]).astype(np.float32) @ vectors
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        clusters = (vectors @ sums.T).argmax(axis=1)
    return _means(vectors, np.unique(clusters, return_inverse=True)[1])


def _ward(vectors: np.ndarray, count: int) -> np.ndarray:
    """(t, d) -> (t,) labels below t, of at most `count` clusters."""
    if len(vectors) <= count:
        return np.arange(len(vectors))
    from scipy.cluster.hierarchy import fcluster, linkage

    return fcluster(linkage(vectors, "ward"), count, "maxclust").astype(np.int64) - 1


def _means(vectors: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(clusters.max() + 1))
    means = np.add.reduceat(vectors[order], starts, axis=0)
    norms = np.add.reduceat(np.linalg.norm(vectors[order], axis=1), starts) / np.diff([*starts, len(vectors)])
    lengths = np.linalg.norm(means, axis=1)
    return means * np.divide(norms, lengths, out=np.zeros_like(norms), where=lengths > 1e-12)[:, None]
