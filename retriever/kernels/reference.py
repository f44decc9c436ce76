"""MaxSim in numpy: the twin that every kernel answers to, and what search uses where no kernel was built.

Pages are taken some thousands of tokens at a time, so that what is decoded stays in the processor's cache.
"""

from __future__ import annotations

import numpy as np

from index.ragged import Codes, Ragged

BLOCK_TOKENS = 4096


def maxsim_reference(queries: Ragged, pages: Ragged | Codes) -> np.ndarray:
    """b queries (m_i, d), n pages (t_i, d) or their int8 or fp16 codes -> (b, n) float32, -inf for an empty page."""
    scores = np.full((len(queries), len(pages)), -np.inf, np.float32)
    tokens = np.ascontiguousarray(queries.values, np.float32)
    scales = pages.scales if isinstance(pages, Codes) else None
    for first, last in _blocks(pages.offsets):
        begin, end = pages.offsets[first], pages.offsets[last]
        similarity = tokens @ pages.values[begin:end].astype(np.float32).T
        if scales is not None:
            similarity *= scales[begin:end].astype(np.float32)
        filled = first + np.flatnonzero(np.diff(pages.offsets[first : last + 1]))
        if len(filled):
            best = np.maximum.reduceat(similarity, pages.offsets[filled] - begin, axis=1)
            for i in range(len(queries)):
                scores[i, filled] = best[queries.offsets[i] : queries.offsets[i + 1]].sum(axis=0)
    return scores


def _blocks(offsets: np.ndarray) -> list[tuple[int, int]]:
    """Split pages into runs of at least one page and about BLOCK_TOKENS tokens."""
    bounds, first = [], 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BLOCK_TOKENS, side="right")) - 1)
        bounds.append((first, last))
        first = last
    return bounds
