"""Build time only: rows of the piece table cut to 2 bits a value.

The values of a row, less the mean of all rows, are as good as normally distributed with one variance (no dimension
stands out), so each is one of the four best levels for that distribution times a scale of its row: 98 bytes a row
instead of 216, cosine to the row before .94 on average. What that costs is in benchmarks/LOG.md.
"""

from __future__ import annotations

import numpy as np

from retriever.encoders.box.states import LEVELS

ROUNDS = 3
_STEP = 20_000


def coarse(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows (n, 384) float32 -> (n, 98) uint8, read back by `dequantise_coarse`: an fp16 scale, then 2-bit codes.

    Scale and codes are fitted in turn to the least squared error, as Lloyd does.
    """
    parts = [_coarse(rows[start : start + _STEP].astype(np.float64) - mean) for start in range(0, len(rows), _STEP)]
    return np.concatenate(parts) if parts else np.zeros((0, 98), np.uint8)


def _coarse(values: np.ndarray) -> np.ndarray:
    levels = LEVELS.astype(np.float64)
    between = (levels[1:] + levels[:-1]) / 2
    scale = np.sqrt((values**2).mean(1, keepdims=True))
    for _ in range(ROUNDS):
        chosen = levels[np.searchsorted(between, values / scale)]
        scale = ((values * chosen).sum(1, keepdims=True) / (chosen**2).sum(1, keepdims=True)).astype("<f2")
        scale = scale.astype(np.float64)
    codes = np.searchsorted(between, values / scale).astype(np.uint8)
    quarters = np.split(codes, 4, axis=1)
    packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return np.concatenate([scale.astype("<f2").view(np.uint8), packed], axis=1)
