"""Intervals: means over items, and differences over seeds and items."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Two-sided 95 % points of Student's t for 1 .. 30 degrees of freedom; from there on, two terms of
# its expansion around the normal's point are exact to the third decimal.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_Z95 = 1.959964


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def t95(degrees: int) -> float:
    """Two-sided 95 % point of Student's t. Raises ValueError below 1 degree of freedom."""
    if degrees < 1:
        raise ValueError(f"degrees={degrees}: must be at least 1")
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    first = (_Z95**3 + _Z95) / 4
    second = (5 * _Z95**5 + 16 * _Z95**3 + 3 * _Z95) / 96
    return _Z95 + first / degrees + second / degrees**2


def wilson(successes: int, n: int) -> Interval:
    """Share of successes with Wilson's 95 % interval. Raises ValueError unless 0 <= k <= n, n > 0.

    Source: Wilson (1927), score interval without continuity correction."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n}")
    share, z2 = successes / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # rounding may leave 1e-17 where the bound is 0 or 1 exactly
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return Interval(share, low, high)


def bootstrap_mean(values: ArrayLike, resamples: int = 4000) -> Interval:
    """Mean of items (N,) with the 95 % percentile bootstrap interval, seeded: same values, same
    interval. Items are the unit that is drawn anew (for Sudoku cells: the puzzle).

    Raises ValueError for no values."""
    items = np.asarray(values, dtype=np.float64)
    if items.ndim != 1 or len(items) == 0:
        raise ValueError(f"values must be a list that is not empty, got shape {items.shape}")
    rng = np.random.default_rng(0)
    means = items[rng.integers(len(items), size=(resamples, len(items)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(items.mean()), float(low), float(high))


def crossed_mean(values: ArrayLike) -> Interval:
    """Mean of (S, N) seeds by items with a 95 % interval for new seeds and new items.

    Seeds and items are crossed: every seed sees the same items. The variance of the grand mean is
    that of the seed means plus that of the item means less that of the residual, which both
    contain (two-way clustering); t quantile with S - 1 degrees of freedom. With one seed, seeds
    cannot vary and the interval is for new items alone. Raises ValueError for no values.
    Source: Cameron, Gelbach and Miller (2011), for the variance."""
    table: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"values must be seeds by items, got shape {table.shape}")
    seeds, items = table.shape
    mean = float(table.mean())
    if seeds == 1:
        return bootstrap_mean(table[0])
    by_seed = table.mean(axis=1).var(ddof=1) / seeds
    by_item = table.mean(axis=0).var(ddof=1) / items if items > 1 else 0.0
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    freedom = (seeds - 1) * max(items - 1, 1)
    noise = (residual**2).sum() / freedom / (seeds * items)
    # a difference of estimates: keep at least the larger of its two parts
    variance = max(by_seed + by_item - noise, by_seed, by_item)
    half = t95(seeds - 1) * float(np.sqrt(variance))
    return Interval(mean, mean - half, mean + half)


def verdict(difference: Interval) -> str:
    """A plain word for a difference: "better", "worse" or "not distinguishable"."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"
