"""How sure a mean over queries is: bootstrap intervals, and the randomisation test of two systems on the same queries.

Values come in groups, one a data set or language, and the figure is the mean of the groups' means (weighted, where data
sets have several languages), as leaderboards form it; queries are drawn anew, or signs flipped, within each group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Groups = Sequence[Sequence[float] | np.ndarray]
RESAMPLES = 10_000
_DRAWN_AT_ONCE = 2_000_000


def mean(groups: Groups, weights: Sequence[float] | None = None) -> float:
    """The mean of the means of the groups, weighted; nan where there is none."""
    return (
        float(sum(weight * values.mean() for values, weight in _weighted(groups, weights))) if groups else float("nan")
    )


def interval(
    groups: Groups,
    weights: Sequence[float] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval (Efron 1979) of `mean(groups, weights)`: (low, high)."""
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for values, weight in _weighted(groups, weights):
        step = max(1, _DRAWN_AT_ONCE // len(values))
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            drawn = values[rng.integers(0, len(values), (rows, len(values)))]
            total[start : start + rows] += weight * drawn.mean(axis=1)
    low, high = np.quantile(total, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def randomisation(
    groups: Groups, weights: Sequence[float] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """The two-sided p-value of `mean(groups, weights)` being 0, of differences between two systems on the same queries.

    Fisher's randomisation test (Smucker, Allan and Carterette 2007): were the systems alike, each difference might as
    well have the other sign. All sign patterns where there are no more than `resamples`, else that many drawn ones.
    """
    shares = [weight * values / len(values) for values, weight in _weighted(groups, weights)]
    differences = np.concatenate([*shares, np.zeros(0)])
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    seen = abs(differences.sum()) * (1 - 1e-9)  # sums in another order differ in the last bits
    if len(differences) < 63 and 2 ** len(differences) <= resamples:
        patterns = np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ differences) >= seen))
    rng = np.random.default_rng(seed)
    step, extreme = max(1, _DRAWN_AT_ONCE // len(differences)), 0
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        signs = 1.0 - 2.0 * rng.integers(0, 2, (rows, len(differences)), dtype=np.int8)
        extreme += int(np.sum(np.abs(signs @ differences) >= seen))
    return (extreme + 1) / (resamples + 1)


def _weighted(groups: Groups, weights: Sequence[float] | None) -> list[tuple[np.ndarray, float]]:
    """The groups that have values, with weights that sum to 1."""
    given = [1.0] * len(groups) if weights is None else weights
    found = [(np.asarray(g, np.float64), w) for g, w in zip(groups, given, strict=True) if len(g)]
    total = sum(weight for _, weight in found)
    return [(values, weight / total) for values, weight in found]
