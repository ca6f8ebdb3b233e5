"""Intervals: means over items, and differences over seeds and items."""

from collections.abc import Sequence
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
_Z80 = 0.841621  # 80 % of a normal lie below it


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


def record_mean(values: Sequence[float]) -> Interval:
    """Mean over the records of one model with its 95 % interval: Wilson's where all are 0 or 1, for
    a bootstrap of equal values would claim certainty, else the bootstrap's.

    Raises ValueError for no values."""
    if values and set(values) <= {0.0, 1.0}:
        return wilson(round(sum(values)), len(values))
    return bootstrap_mean(values)


@dataclass(frozen=True)
class Crossed:
    """A grand mean of seeds by items: its standard error and that error's degrees of freedom."""

    mean: float
    error: float
    freedom: int

    @property
    def interval(self) -> Interval:
        """The 95 % interval by Student's t."""
        half = t95(self.freedom) * self.error
        return Interval(self.mean, self.mean - half, self.mean + half)

    @property
    def smallest_visible(self) -> float:
        """The true difference that such a design finds in four of five repetitions."""
        return (t95(self.freedom) + _Z80) * self.error


def crossed_estimate(values: ArrayLike) -> Crossed:
    """Mean of (S, N) seeds by items, S > 1, with the error that new seeds and new items bring.

    Seeds and items are crossed: every seed sees the same items. The variance of the grand mean is
    that of the seed means plus that of the item means less that of the residual, which both
    contain; its degrees of freedom are Satterthwaite's, between S - 1 where the seeds make the
    variance and N - 1 where the items do. Raises ValueError for fewer than two seeds.
    Source: Cameron, Gelbach and Miller (2011), two-way clustering; Satterthwaite (1946)."""
    table = _table(values)
    seeds, items = table.shape
    if seeds < 2:
        raise ValueError("values: one seed tells nothing of others")
    mean = float(table.mean())
    by_seed = table.mean(axis=1).var(ddof=1) / seeds
    by_item = table.mean(axis=0).var(ddof=1) / items if items > 1 else 0.0
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    cells = (seeds - 1) * max(items - 1, 1)
    noise = (residual**2).sum() / cells / (seeds * items)
    # a difference of estimates: keep at least the larger of its two parts
    variance = float(max(by_seed + by_item - noise, by_seed, by_item))
    parts = by_seed**2 / (seeds - 1) + by_item**2 / max(items - 1, 1) + noise**2 / cells
    freedom = max(int(variance**2 / parts), seeds - 1) if parts > 0 else seeds - 1
    return Crossed(mean, variance**0.5, freedom)


def crossed_mean(values: ArrayLike) -> Interval:
    """Mean of (S, N) seeds by items with a 95 % interval for new seeds and new items.

    As crossed_estimate. With one seed, seeds cannot vary and the interval is for new items alone.
    Raises ValueError for no values."""
    table = _table(values)
    return bootstrap_mean(table[0]) if len(table) == 1 else crossed_estimate(table).interval


def hierarchical_bootstrap(values: ArrayLike, resamples: int = 4000) -> NDArray[np.float64]:
    """Grand means (resamples,) of (S, N) seeds by items, seeds and items both drawn anew.

    Seeded: same values, same draws. Resampling S seeds shows (S - 1) / S of their variance, so the
    seeds' weights are stretched by the root of the inverse; its percentiles know nothing of how
    uncertain that variance is, so all deviations are stretched by the t point of crossed_estimate's
    degrees of freedom over the normal's. With one seed items alone are drawn.
    Raises ValueError for no values. Source: Owen (2007), the pigeonhole bootstrap, which counts the
    residual's variance more than once: where that leads, intervals are too wide."""
    table = _table(values)
    seeds, items = table.shape
    rng = np.random.default_rng(0)
    by_item = rng.multinomial(items, np.full(items, 1 / items), size=resamples) / items
    if seeds == 1:
        return by_item @ table[0]
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    by_seed = 1 / seeds + (by_seed - 1 / seeds) * (seeds / (seeds - 1)) ** 0.5
    means = ((by_seed @ table) * by_item).sum(axis=1)
    centre = table.mean()
    return centre + (means - centre) * t95(crossed_estimate(table).freedom) / _Z95


def percentile_interval(mean: float, draws: ArrayLike) -> Interval:
    """The middle 95 % of bootstrap draws around a mean."""
    low, high = np.percentile(np.asarray(draws), [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def superiority(draws: ArrayLike) -> float:
    """Share of bootstrap draws above 0, a draw at 0 counting half: how likely "better" is."""
    found = np.asarray(draws)
    return float(((found > 0).mean() + (found >= 0).mean()) / 2)


def p_value(draws: ArrayLike) -> float:
    """Two-sided p of "no difference" from bootstrap draws; at least 1 / number of draws."""
    found = np.asarray(draws)
    tail = min((found <= 0).mean(), (found >= 0).mean())
    return float(min(1.0, max(2 * tail, 1 / len(found))))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number: below .05 holds for all together.

    Source: Holm (1979): the k-th smallest of m times (m - k + 1), never below the ones before."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _table(values: ArrayLike) -> NDArray[np.float64]:
    table: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"values must be seeds by items, got shape {table.shape}")
    return table


def verdict(difference: Interval) -> str:
    """A plain word for a difference: "better", "worse" or "not distinguishable"."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"
