"""Intervals: against hand-worked numbers, published tables and simulations with a known truth."""

import numpy as np
import pytest

from weft_rl.stats import Interval, bootstrap_mean, crossed_mean, t95, verdict, wilson


@pytest.mark.parametrize(
    ("degrees", "point"),
    # a printed table of Student's t, two-sided 95 %
    [(1, 12.706), (2, 4.303), (10, 2.228), (30, 2.042), (40, 2.021), (60, 2.000), (120, 1.980)],
)
def test_t_quantiles(degrees, point):
    assert t95(degrees) == pytest.approx(point, abs=6e-4)


def test_t_needs_a_degree_of_freedom():
    with pytest.raises(ValueError, match="degrees=0"):
        t95(0)


def test_wilson_by_hand():
    # k=8, n=10, z=1.96: centre (.8 + .19208) / 1.38416 = .71674,
    # half 1.96 / 1.38416 * sqrt(.016 + .009604) = .22658
    found = wilson(8, 10)
    assert found.mean == 0.8
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_at_the_ends():
    # 0 of n: the upper bound is z^2 / (n + z^2) = 3.8415 / 13.8415
    assert wilson(0, 10) == Interval(0.0, 0.0, pytest.approx(0.27754, abs=1e-5))
    assert wilson(10, 10) == Interval(1.0, pytest.approx(0.72246, abs=1e-5), 1.0)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses(successes, n):
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        wilson(successes, n)


def test_bootstrap_by_enumeration():
    # of (0, 1), a resample's mean is 0 or 1 with chance 1/4 each: both are beyond 2.5 %
    assert bootstrap_mean([0.0, 1.0]) == Interval(0.5, 0.0, 1.0)
    assert bootstrap_mean([0.25]) == Interval(0.25, 0.25, 0.25)
    values = np.linspace(0, 1, 200)
    half = 1.96 * values.std() / np.sqrt(200)
    found = bootstrap_mean(values)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.003)
    assert bootstrap_mean(values) == found


@pytest.mark.parametrize("values", [[], [[0.5]]])
def test_bootstrap_refuses(values):
    with pytest.raises(ValueError, match="not empty"):
        bootstrap_mean(values)


def test_crossed_mean_by_hand():
    # two seeds, two items: mean 4; seed means 2.5, 5.5: their variance 4.5, / 2 seeds = 2.25;
    # item means 2, 6: variance 8, / 2 items = 4; residuals +-.5: sum of squares 1, 1 degree of
    # freedom, / 4 cells = .25; variance 2.25 + 4 - .25 = 6
    found = crossed_mean([[1.0, 4.0], [3.0, 8.0]])
    assert found.mean == 4.0
    half = 12.706 * 6**0.5
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half))


def test_crossed_mean_keeps_the_larger_part():
    # an interaction alone: seed means .5, .5 and item means .5, .5, residuals +-.5: 0 + 0 - .25 < 0
    assert crossed_mean([[0.0, 1.0], [1.0, 0.0]]) == Interval(0.5, 0.5, 0.5)


def test_one_seed_or_one_item():
    assert crossed_mean([[0.0, 1.0]]) == bootstrap_mean([0.0, 1.0])
    # items cannot vary: the t interval of 1, 2, 3 is 2 -/+ 4.303 * 1 / sqrt(3)
    found = crossed_mean([[1.0], [2.0], [3.0]])
    assert (found.mean, found.high) == (2.0, pytest.approx(2 + 4.303 / 3**0.5))


@pytest.mark.parametrize("values", [[], [0.5], [[]]])
def test_crossed_mean_refuses(values):
    with pytest.raises(ValueError, match="seeds by items"):
        crossed_mean(values)


@pytest.mark.parametrize(
    ("seed_sd", "item_sd", "noise_sd"), [(0.3, 0.3, 1.0), (1.0, 0.1, 0.3), (0.05, 1.0, 0.3)]
)
def test_crossed_mean_covers(seed_sd, item_sd, noise_sd):
    """y = seed + item + noise around a known mean: 95 % of intervals hold it, or somewhat more."""
    rng, trials, held = np.random.default_rng(0), 1000, 0
    for _ in range(trials):
        values = 0.5 + seed_sd * rng.normal(size=(5, 1)) + item_sd * rng.normal(size=30)
        found = crossed_mean(values + noise_sd * rng.normal(size=(5, 30)))
        held += found.low <= 0.5 <= found.high
    # three standard errors of a share of 1000 are 2 points
    assert held / trials >= 0.93


def test_crossed_mean_is_not_wider_than_need_be():
    """Where only seeds vary, it is the t interval of the seed means: as good as exact."""
    rng, trials, held = np.random.default_rng(1), 1000, 0
    for _ in range(trials):
        found = crossed_mean(0.5 + rng.normal(size=(5, 1)) + np.zeros(30))
        held += found.low <= 0.5 <= found.high
    assert 0.93 <= held / trials <= 0.97


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 0.2, "better"),
        (-0.2, -0.1, "worse"),
        (-0.1, 0.1, "not distinguishable"),
        (0.0, 0.1, "not distinguishable"),
        (-0.1, 0.0, "not distinguishable"),
    ],
)
def test_verdict(low, high, word):
    assert verdict(Interval((low + high) / 2, low, high)) == word
