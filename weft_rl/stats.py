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

    def within(self, least: float, most: float) -> "Interval":
        """Without what lies outside of the values that the mean can have."""
        return Interval(self.mean, max(self.low, least), min(self.high, most))


def t_tail(t: float, degrees: float) -> float:
    """Chance that Student's t is as far from 0 as `t`, or farther, on either side.

    Raises ValueError below 1 degree of freedom."""
    scale = _density_scale(degrees)
    # t = sqrt(degrees) tan(angle) turns the density into a power of the cosine
    low = math.atan(abs(t) / degrees**0.5)
    high = min(math.pi / 2, low + 12 / degrees**0.5)  # beyond, the cosine's power is 0
    angles = low + (high - low) * (_NODES + 1) / 2
    area = (high - low) / 2 * float(_WEIGHTS @ np.cos(angles) ** (degrees - 1))
    return min(1.0, 2 * area * scale * degrees**0.5)


def _density_scale(degrees: float) -> float:
    """Student's density at 0."""
    if degrees < 1:
        raise ValueError(f"degrees={degrees}: must be at least 1")
    logs = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    return math.exp(logs) / (math.pi * degrees) ** 0.5


@cache
def t_point(level: float, degrees: float) -> float:
    """How far from 0 Student's t is with chance `level`, in (0, 1], on either side: for .05 the
    point of a 95 % interval. Raises ValueError below 1 degree of freedom."""
    scale = 2 * _density_scale(degrees)
    point, step = 0.0, math.inf
    # the tail is convex: Newton's steps from 0 never pass the point
    while step > 1e-12 * (1 + point):
        slope = scale * (1 + point * point / degrees) ** (-(degrees + 1) / 2)
        step = (t_tail(point, degrees) - level) / slope
        point += max(step, 0.0)
    return point


def t95(degrees: float) -> float:
    """Two-sided 95 % point of Student's t. Raises ValueError below 1 degree of freedom."""
    return t_point(0.05, degrees)


def wilson(successes: float, n: int) -> Interval:
    """Share of successes with Wilson's 95 % interval. Raises ValueError unless 0 <= k <= n, n > 0.

    Shares of several cells add up to parts of successes; the interval is then wide enough for
    records that are all or nothing.
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
    """Mean of shares over the records of one model with its 95 % interval: Wilson's where all are 0
    or 1, or alike, for a bootstrap of equal values would claim certainty; else the bootstrap's.

    Raises ValueError for no values."""
    if values and (set(values) <= {0.0, 1.0} or len(set(values)) == 1):
        return wilson(sum(values), len(values))
    return bootstrap_mean(values)


@dataclass(frozen=True)
class TwoWayEstimate:
    """A grand mean of seeds by items, and the parts of its variance.

    by_seed and by_item are the variances of the seed means and of the item means over their
    numbers; both contain `noise`, the residual's part. With one seed, by_seed and noise are 0; with
    one item, by_item and noise are."""

    mean: float
    by_seed: float
    by_item: float
    noise: float
    seeds: int
    items: int

    def half_width(self, level: float = 0.05) -> float:
        """Half of the interval that misses the true mean with chance `level` or less, where seed
        means and item means are roughly normal. Where some seeds fail outright nothing is promised.

        Each part of the variance counts with its own t point, S - 1 degrees of freedom for seeds
        and N - 1 for items, and the interval is no narrower than for these seeds and new items, nor
        than if all N items were alike and there were one more without any effect: items that all
        say the same are no certainty.
        Few seeds thus cost what they must where seeds make the variance, and nothing where items
        do; one common number of degrees of freedom, estimated from the parts (Satterthwaite), made
        up to 11 of 100 intervals too narrow with two seeds. Source: after Banerjee (1960, 1961),
        intervals for sums of means whose variances are estimated apart; that the residual, which
        both parts contain, counts once only is not covered by his bound but by the simulations in
        tests/test_stats.py."""
        seed_point = t_point(level, self.seeds - 1) if self.seeds > 1 else 0.0
        item_point = t_point(level, self.items - 1) if self.items > 1 else 0.0
        own = max(self.by_item - self.noise, 0.0)
        both = seed_point**2 * self.by_seed + item_point**2 * own
        one_more = t_point(level, self.items) * self.mean / (self.items + 1)
        return max(both, item_point**2 * self.by_item, one_more**2) ** 0.5

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        half = self.half_width()
        return Interval(self.mean, self.mean - half, self.mean + half)

    @property
    def p(self) -> float:
        """Two-sided p of a true mean of 0: the level whose interval ends at 0, so that it is below
        .05 where the 95 % interval is on one side of 0."""
        low, high = 0.0, 1.0
        while high - low > 1e-7:  # five digits are told
            middle = (low + high) / 2
            inside = self.half_width(middle) < abs(self.mean)
            low, high = (low, middle) if inside else (middle, high)
        return high

    def minimum_detectable_effect(self, comparisons: int = 1) -> float:
        """The true difference that such a design finds in about three of four repetitions, when it
        is one of so many comparisons; in two of three with fewer than five seeds, or several
        comparisons of fewer than eight. Simulated in tests/test_stats.py. It is estimated itself:
        one study's may be found in a third of repetitions, or in nearly all."""
        return self.half_width(0.05 / comparisons) + self.half_width(0.4)


def crossed_estimate(values: ArrayLike) -> TwoWayEstimate:
    """Mean of (S, N) seeds by items, with the parts of the error that new seeds and items bring.

    Seeds and items are crossed: every seed sees the same items. With one seed, seeds cannot vary,
    and the error is of new items alone. Raises ValueError for no values.
    Source: Cameron, Gelbach and Miller (2011), two-way clustering."""
    table = _table(values)
    seeds, items = table.shape
    mean = float(table.mean())
    by_seed = table.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else 0.0
    by_item = table.mean(axis=0).var(ddof=1) / items if items > 1 else 0.0
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    cells = max((seeds - 1) * (items - 1), 1)
    noise = (residual**2).sum() / cells / (seeds * items)
    return TwoWayEstimate(mean, float(by_seed), float(by_item), float(noise), seeds, items)


def crossed_mean(values: ArrayLike) -> Interval:
    """Mean of (S, N) seeds by items with a 95 % interval for new seeds and new items.

    As crossed_estimate. Raises ValueError for no values."""
    return crossed_estimate(values).interval


def hierarchical_bootstrap(values: ArrayLike, resamples: int = 4000) -> NDArray[np.float64]:
    """Grand means (resamples,) of (S, N) seeds by items, seeds and items both drawn anew.

    Seeded: same values, same draws. Drawing both counts the residual's variance more than once,
    and a few seeds less than they vary: the draws are brought to the width of crossed_estimate's
    interval; their shape is the bootstrap's own. Raises ValueError for no values.
    Source: Owen (2007), the pigeonhole bootstrap."""
    table = _table(values)
    seeds, items = table.shape
    rng = np.random.default_rng(0)
    by_item = rng.multinomial(items, np.full(items, 1 / items), size=resamples) / items
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    off = ((by_seed @ table) * by_item).sum(axis=1) - table.mean()
    found, spread = crossed_estimate(table), off.std()
    return found.mean + off * (found.half_width() / _Z95 / spread if spread > 0 else 0.0)


def percentile_interval(mean: float, draws: ArrayLike) -> Interval:
    """The middle 95 % of bootstrap draws around a mean."""
    low, high = np.percentile(np.asarray(draws), [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def prob_superiority(values: ArrayLike) -> float:
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
