"""95% confidence intervals of means over records, and of differences over seeds and records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z95 = 1.959964  # 97.5% quantile of the normal distribution
_RESAMPLES = 4000  # bootstrap noise of a bound: about 3% of the standard error


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def within(self, least: float, most: float) -> "Interval":
        """Clip the bounds to the range of the mean."""
        return Interval(self.mean, max(self.low, least), min(self.high, most))


def t_critical(degrees: float, level: float = 0.05) -> float:
    """Two-sided critical value of Student's t at `level`. Raises ValueError if degrees < 1."""
    from scipy.special import stdtrit  # imported here: slow, and --help does not need it

    if degrees < 1:
        raise ValueError(f"degrees={degrees}: must be at least 1")
    return -float(stdtrit(degrees, level / 2))


def t_half_width(values: ArrayLike) -> NDArray[np.float64]:
    """Half-width (...) of the 95% t interval of the mean over the first axis of (R >= 2, ...)."""
    rows = np.asarray(values, dtype=np.float64)
    return t_critical(len(rows) - 1) * rows.std(axis=0, ddof=1) / len(rows) ** 0.5


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of at least two values (R,) with its 95% t interval."""
    mean, half = float(np.mean(values)), float(t_half_width(values))
    return Interval(mean, mean - half, mean + half)


def wilson(successes: float, n: int) -> Interval:
    """Share of successes with Wilson's interval. Raises ValueError unless 0 <= successes <= n > 0.

    Successes may be fractional (shares of cells); the interval then suits all-or-nothing records.
    Source: Wilson (1927), score interval without continuity correction."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n}")
    share, z2 = successes / n, _Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)))
    # rounding can leave 1e-17 where the bound is exactly 0 or 1
    low, high = 0.0 if successes == 0 else center - half, 1.0 if successes == n else center + half
    return Interval(share, low, high)


def record_mean(values: Sequence[float]) -> Interval:
    """Mean of one model's scores in [0, 1] over records (N,), with its interval.

    Wilson's interval for binary or equal scores (a bootstrap of equal values has zero width), else
    the percentile bootstrap over records, fixed seed. Raises ValueError for no values."""
    if not values:
        raise ValueError("values: must not be empty")
    if set(values) <= {0.0, 1.0} or len(set(values)) == 1:
        return wilson(sum(values), len(values))
    scores = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(0).integers(len(scores), size=(_RESAMPLES, len(scores)))
    low, high = np.percentile(scores[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(scores.mean()), float(low), float(high))


@dataclass(frozen=True)
class TwoWayEstimate:
    """A grand mean over seeds and items, with its variance components.

    by_seed, by_item: variance of the seed and item means, divided by their number. Both contain
    `noise`, the residual's share. One seed: by_seed = noise = 0; one item: by_item = noise = 0."""

    mean: float
    by_seed: float
    by_item: float
    noise: float
    seeds: int
    items: int

    def half_width(self, level: float = 0.05) -> float:
        """Half-width of the interval that misses the true mean with probability <= `level`.

        Assumes roughly normal seed and item means. Each component has its own t quantile. There are
        two lower bounds: the interval for these seeds and new items, and the interval with one more
        item of zero effect. The residual is part of both components and counts once. Source: after
        Banerjee (1960, 1961); simulated in tests/test_stats.py."""
        seed_point = t_critical(self.seeds - 1, level) if self.seeds > 1 else 0.0
        item_point = t_critical(self.items - 1, level) if self.items > 1 else 0.0
        items_alone = max(self.by_item - self.noise, 0.0)
        both = seed_point**2 * self.by_seed + item_point**2 * items_alone
        one_more = t_critical(self.items, level) * self.mean / (self.items + 1)
        return max(both, item_point**2 * self.by_item, one_more**2) ** 0.5

    @property
    def interval(self) -> Interval:
        """The 95% interval."""
        half = self.half_width()
        return Interval(self.mean, self.mean - half, self.mean + half)

    @property
    def p(self) -> float:
        """Two-sided p-value of a zero true mean: the level whose interval ends at 0."""
        low, high = 0.0, 1.0
        while high - low > 1e-7:  # reports print five digits
            middle = (low + high) / 2
            significant = self.half_width(middle) < abs(self.mean)
            low, high = (low, middle) if significant else (middle, high)
        return high

    def minimum_detectable_effect(self, comparisons: int = 1) -> float:
        """True difference that such a design detects in about 3 of 4 repetitions.

        In 2 of 3 with fewer than five seeds, or with several comparisons and fewer than eight
        (simulated in tests/test_stats.py). The value itself is an estimate: across studies, the
        detection rate of the value ranges from a third to nearly 1."""
        return self.half_width(0.05 / comparisons) + self.half_width(0.4)


def crossed_estimate(values: ArrayLike) -> TwoWayEstimate:
    """Mean of (S, N) seeds by items with variance components; all seeds have the same items.

    With one seed, the error covers new items only. Raises ValueError for no values.
    Source: Cameron, Gelbach and Miller (2011), two-way clustering."""
    table: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"values must be seeds by items, got shape {table.shape}")
    seeds, items = table.shape
    mean = float(table.mean())
    by_seed = table.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else 0.0
    by_item = table.mean(axis=0).var(ddof=1) / items if items > 1 else 0.0
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    cells = max((seeds - 1) * (items - 1), 1)
    noise = (residual**2).sum() / cells / (seeds * items)
    return TwoWayEstimate(mean, float(by_seed), float(by_item), float(noise), seeds, items)


def crossed_mean(values: ArrayLike) -> Interval:
    """Mean of (S, N) seeds by items with its interval; see crossed_estimate."""
    return crossed_estimate(values).interval


def prob_superiority(differences: ArrayLike) -> float:
    """Probability of superiority: share of paired differences above 0, ties count half."""
    values = np.asarray(differences)
    return float(((values > 0).mean() + (values >= 0).mean()) / 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, valid jointly at the 5% level. Source: Holm (1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]).clip(max=1.0)
    return steps[order.argsort()].tolist()


def verdict(difference: Interval) -> str:
    """Return "better", "worse" or "not distinguishable"."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"
