"""95% confidence intervals: means over records, and differences over seeds and records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z95 = 1.959964  # two-sided 95% point of the normal distribution
_RESAMPLES = 4000  # bootstrap noise of a bound: about 3% of the standard error


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def within(self, least: float, most: float) -> "Interval":
        """Clip the bounds to the values that the mean can have."""
        return Interval(self.mean, max(self.low, least), min(self.high, most))


def t_critical(degrees: float, level: float = 0.05) -> float:
    """Critical value of Student's t: |t| exceeds it with probability `level` in (0, 1].

    Raises ValueError below 1 degree of freedom."""
    from scipy.special import stdtrit  # imported here: it takes longer than a help text may

    if degrees < 1:
        raise ValueError(f"degrees={degrees}: must be at least 1")
    return -float(stdtrit(degrees, level / 2))


def t_half_width(values: ArrayLike) -> NDArray[np.float64]:
    """Half-width (...) of the 95% t interval of the mean over the first axis of (R >= 2, ...)."""
    rows = np.asarray(values, dtype=np.float64)
    return t_critical(len(rows) - 1) * rows.std(axis=0, ddof=1) / len(rows) ** 0.5


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of at least two values (R,) with its t interval."""
    mean, half = float(np.mean(values)), float(t_half_width(values))
    return Interval(mean, mean - half, mean + half)


def wilson(successes: float, n: int) -> Interval:
    """Share of successes with Wilson's interval. Raises ValueError unless 0 <= successes <= n > 0.

    Successes may be fractional (shares of several cells); the interval is then wide enough for
    records that are all or nothing.
    Source: Wilson (1927), score interval without continuity correction."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n}")
    share, z2 = successes / n, _Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # rounding may leave 1e-17 where the bound is exactly 0 or 1
    low = 0.0 if successes == 0 else float(center - half)
    high = 1.0 if successes == n else float(center + half)
    return Interval(share, low, high)


def record_mean(values: Sequence[float]) -> Interval:
    """Mean of one model's scores in [0, 1] over records (N,), with its interval.

    Wilson's interval if all scores are 0 or 1, or equal (a bootstrap of equal values claims
    certainty); otherwise the percentile bootstrap over records, with a fixed seed.
    Raises ValueError for no values."""
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

    by_seed, by_item: variance of the seed means and of the item means, over their number; both
    contain `noise`, the residual's share. One seed: by_seed = noise = 0; one item: by_item = noise
    = 0."""

    mean: float
    by_seed: float
    by_item: float
    noise: float
    seeds: int
    items: int

    def half_width(self, level: float = 0.05) -> float:
        """Half-width of the interval that misses the true mean with probability <= `level`.

        Seed means and item means must be roughly normal. Each component has its own t point. Two
        lower bounds: the interval for these seeds and new items, and the one with a further item
        without any effect. Source: after Banerjee (1960, 1961); simulated in tests/test_stats.py,
        since the residual is part of both components and counts once here."""
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
        """Two-sided p-value of a true mean of 0: the level whose interval ends at 0."""
        low, high = 0.0, 1.0
        while high - low > 1e-7:  # reports print five digits
            middle = (low + high) / 2
            significant = self.half_width(middle) < abs(self.mean)
            low, high = (low, middle) if significant else (middle, high)
        return high

    def minimum_detectable_effect(self, comparisons: int = 1) -> float:
        """True difference that such a design detects in about 3 of 4 repetitions.

        In 2 of 3 with fewer than five seeds, or several comparisons of fewer than eight
        (simulated in tests/test_stats.py). It is itself an estimate: the detection rate of one
        study's value ranges from a third to nearly all."""
        return self.half_width(0.05 / comparisons) + self.half_width(0.4)


def crossed_estimate(values: ArrayLike) -> TwoWayEstimate:
    """Mean of (S, N) seeds by items and its variance components; every seed has the same items.

    With one seed the error is that of new items alone. Raises ValueError for no values.
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
    """Probability of superiority: share of paired differences above 0, ties counting half."""
    values = np.asarray(differences)
    return float(((values > 0).mean() + (values >= 0).mean()) / 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values: those below .05 hold jointly. Source: Holm (1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]).clip(max=1.0)
    adjusted = np.empty_like(p)
    adjusted[order] = steps
    return adjusted.tolist()


def verdict(difference: Interval) -> str:
    """Return "better", "worse" or "not distinguishable"."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not distinguishable"
