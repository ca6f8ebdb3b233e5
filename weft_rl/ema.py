"""Smoothing of reward curves, as in experiment dashboards."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Default weight of reward curves: a point's weight halves over about 7% of the axis, which
# smooths noisy rollouts into a line.
SMOOTHING = 0.98

# As in the dashboards: decay per thousandth of the x axis, and an upper limit of the weight.
_MAX_WEIGHT = 0.999
_AXIS_PARTS = 1000


def time_weighted_ema(steps: ArrayLike, values: ArrayLike, weight: float) -> NDArray[np.float64]:
    """Exponential moving average whose decay depends on the distance between points.

    steps (N,) non-decreasing; values (N,) finite; weight in [0, 1], the dashboards' slider.
    With w = min(sqrt(weight), 0.999) and dx the step distance in thousandths of the range,
    a = w**dx; last = last * a + y; debias = debias * a + 1; the output is last / debias.
    Returns (N,) float64. Raises ValueError for unequal lengths, a weight outside [0, 1],
    decreasing steps or values that are not finite.
    Source: the time-weighted EMA of experiment dashboards; used for Figure 3 of WeFT."""
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"steps and values must be equally long lists, got {x.shape}, {y.shape}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight}: must be in [0, 1]")
    if not np.isfinite(y).all():
        raise ValueError("values must be finite; drop missing points first")
    gaps = np.diff(x, prepend=x[:1])
    if (gaps < 0).any():
        raise ValueError("steps must not decrease")
    span = gaps.sum()
    decay = min(weight**0.5, _MAX_WEIGHT) ** (gaps / span * _AXIS_PARTS if span > 0 else gaps)
    smoothed, last, debias = np.empty_like(y), 0.0, 0.0
    for i, (a, value) in enumerate(zip(decay, y, strict=True)):
        last, debias = last * a + value, debias * a + 1.0
        smoothed[i] = last / debias
    return smoothed
