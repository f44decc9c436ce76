"""How sure a mean over queries is: bootstrap intervals, and the randomisation test of two systems on the same queries.

Values come in groups, one a data set (or language), and the figure is the mean of the groups' means, as leaderboards
form it; queries are drawn anew, or signs flipped, within each group. One data set alone is a list of one group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
_DRAWN_AT_ONCE = 2_000_000


def mean(groups: Sequence[Sequence[float] | np.ndarray]) -> float:
    """The mean of the means of the groups; nan where there is none."""
    means = [float(np.mean(group)) for group in groups if len(group)]
    return float(np.mean(means)) if means else float("nan")


def interval(
    groups: Sequence[Sequence[float] | np.ndarray], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval (Efron 1979) of `mean(groups)`: (low, high)."""
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(group, np.float64) for group in groups if len(group)]
    if not arrays:
        return float("nan"), float("nan")
    total = np.zeros(resamples)
    for values in arrays:
        step = max(1, _DRAWN_AT_ONCE // len(values))
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            total[start : start + rows] += values[rng.integers(0, len(values), (rows, len(values)))].mean(axis=1)
    low, high = np.quantile(total / len(arrays), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def randomisation(groups: Sequence[Sequence[float] | np.ndarray], resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The two-sided p-value of `mean(groups)` being 0, groups of differences between two systems on the same queries.

    Fisher's randomisation test (Smucker, Allan and Carterette 2007): were the systems alike, each difference might as
    well have the other sign. All sign patterns where there are no more than `resamples`, else that many drawn ones.
    """
    arrays = [np.asarray(group, np.float64) for group in groups if len(group)]
    weighted = np.concatenate([values / len(values) for values in arrays]) if arrays else np.zeros(0)
    weighted = weighted[weighted != 0]
    if not len(weighted):
        return 1.0
    seen = abs(weighted.sum()) * (1 - 1e-12) - 1e-15  # sums in another order differ in the last bits
    if len(weighted) < 63 and 2 ** len(weighted) <= resamples:
        patterns = np.arange(2 ** len(weighted))[:, None] >> np.arange(len(weighted)) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ weighted) >= seen))
    rng = np.random.default_rng(seed)
    step, extreme = max(1, _DRAWN_AT_ONCE // len(weighted)), 0
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        signs = 1.0 - 2.0 * rng.integers(0, 2, (rows, len(weighted)), dtype=np.int8)
        extreme += int(np.sum(np.abs(signs @ weighted) >= seen))
    return (extreme + 1) / (resamples + 1)
