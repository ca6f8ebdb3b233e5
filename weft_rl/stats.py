"""Intervals: means over items, and differences over seeds and items."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z95 = 1.959964
# Points at which the tail of Student's t is summed: it is smooth, and these are exact to 1e-10.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def t_tail(t: float, degrees: float) -> float:
    """Chance that Student's t is as far from 0 as `t`, or farther, on either side.

    Raises ValueError below 1 degree of freedom."""
    if degrees < 1:
        raise ValueError(f"degrees={degrees}: must be at least 1")
    # t = sqrt(degrees) tan(angle) turns the density into a power of the cosine
    low = math.atan(abs(t) / degrees**0.5)
    high = min(math.pi / 2, low + 12 / degrees**0.5)  # beyond, the cosine's power is 0
    angles = low + (high - low) * (_NODES + 1) / 2
    area = (high - low) / 2 * float(_WEIGHTS @ np.cos(angles) ** (degrees - 1))
    logs = math.lgamma(0.5) + math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2)
    return min(1.0, 2 * area / math.exp(logs))


@cache
def t_point(level: float, degrees: float) -> float:
    """How far from 0 Student's t is with chance `level`, in (0, 1), on either side: for .05 the
    point of a 95 % interval. Raises ValueError below 1 degree of freedom."""
    low, high = 0.0, 1.0
    while t_tail(high, degrees) > level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, degrees) > level else (low, middle)
    return high


def t95(degrees: float) -> float:
    """Two-sided 95 % point of Student's t. Raises ValueError below 1 degree of freedom."""
    return t_point(0.05, degrees)


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

    seeds: int

    @property
    def interval(self) -> Interval:
        """The 95 % interval by Student's t."""
        half = t95(self.freedom) * self.error
        return Interval(self.mean, self.mean - half, self.mean + half)

    @property
    def p(self) -> float:
        """Two-sided p of a true mean of 0, by Student's t with S - 1 degrees of freedom.

        Satterthwaite's are made for the 95 % point; as far out as a correction for several
        comparisons looks, they promise too much where there are few seeds."""
        if self.error == 0:
            return float(self.mean == 0)
        return t_tail(self.mean / self.error, self.seeds - 1)

    def smallest_visible(self, comparisons: int = 1) -> float:
        """The true difference that such a design finds in about three of four repetitions, when it
        is one of so many comparisons; with three seeds, in two of three. Simulated in
        tests/test_stats.py."""
        degrees = self.freedom if comparisons == 1 else self.seeds - 1
        return (t_point(0.05 / comparisons, degrees) + t_point(0.4, degrees)) * self.error


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
    return Crossed(mean, variance**0.5, freedom, seeds)


def crossed_mean(values: ArrayLike) -> Interval:
    """Mean of (S, N) seeds by items with a 95 % interval for new seeds and new items.

    As crossed_estimate. With one seed, seeds cannot vary and the interval is for new items alone.
    Raises ValueError for no values."""
    table = _table(values)
    return bootstrap_mean(table[0]) if len(table) == 1 else crossed_estimate(table).interval


def hierarchical_bootstrap(values: ArrayLike, resamples: int = 4000) -> NDArray[np.float64]:
    """Grand means (resamples,) of (S, N) seeds by items, seeds and items both drawn anew.

    Seeded: same values, same draws. Drawing both counts the residual's variance more than once,
    and a few seeds less than they vary: the draws are brought to crossed_estimate's error, and
    then by its t point over the normal's, as that error is itself uncertain; their shape is the
    bootstrap's own. With one seed items alone are drawn, as they are. Raises ValueError for no
    values. Source: Owen (2007), the pigeonhole bootstrap."""
    table = _table(values)
    seeds, items = table.shape
    rng = np.random.default_rng(0)
    by_item = rng.multinomial(items, np.full(items, 1 / items), size=resamples) / items
    if seeds == 1:
        return by_item @ table[0]
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    off = ((by_seed @ table) * by_item).sum(axis=1) - table.mean()
    found, spread = crossed_estimate(table), off.std()
    scale = found.error / spread * t95(found.freedom) / _Z95 if spread > 0 else 0.0
    return found.mean + off * scale


def percentile_interval(mean: float, draws: ArrayLike) -> Interval:
    """The middle 95 % of bootstrap draws around a mean."""
    low, high = np.percentile(np.asarray(draws), [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def share_above(values: ArrayLike) -> float:
    """Share of values above 0, one at 0 counting half.

    Of paired differences it is the probability of superiority."""
    found = np.asarray(values)
    return float(((found > 0).mean() + (found >= 0).mean()) / 2)


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
