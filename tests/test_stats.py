"""Intervals against hand-worked numbers, published tables and simulations with a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weft_rl.stats import (
    Interval,
    crossed_estimate,
    crossed_mean,
    holm,
    prob_superiority,
    record_mean,
    t_critical,
    t_half_width,
    t_interval,
    verdict,
    wilson,
)


def cauchy_tail(t):
    """Two-sided tail of Student's t with one degree of freedom."""
    return 1 - 2 * np.arctan(t) / np.pi


@pytest.mark.parametrize(
    ("level", "degrees", "point"),
    # a printed table of Student's t, two-sided
    [
        *((0.05, n, t) for n, t in [(1, 12.706), (2, 4.303), (10, 2.228), (40, 2.021)]),
        *((0.2, n, t) for n, t in [(1, 3.078), (8, 1.397)]),
        *((0.01, 1, 63.657), (0.001, 7, 5.408), (1.0, 3, 0.0)),
    ],
)
def test_critical_values(level, degrees, point):
    assert t_critical(degrees, level) == pytest.approx(point, abs=6e-4)


def test_t_interval_by_hand():
    # 1, 2, 3: standard deviation 1, 2 degrees of freedom
    half = 4.303 / 3**0.5
    low, high = (pytest.approx(2 + sign * half, abs=1e-3) for sign in (-1, 1))
    assert t_interval([1.0, 2.0, 3.0]) == Interval(2.0, low, high)
    assert t_half_width([[1, 5], [2, 5], [3, 5]]) == pytest.approx([half, 0.0], abs=1e-3)


def test_wilson_by_hand():
    # k=8, n=10, z=1.96: center (.8 + .19208) / 1.38416 = .71674,
    # half 1.96 / 1.38416 * sqrt(.016 + .009604) = .22658
    interval = wilson(8, 10)
    assert interval.mean == 0.8
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # 0 of n: the upper bound is z^2 / (n + z^2) = 3.8415 / 13.8415
    assert wilson(0, 10) == Interval(0.0, 0.0, pytest.approx(0.27754, abs=1e-5))
    assert wilson(10, 10) == Interval(1.0, pytest.approx(0.72246, abs=1e-5), 1.0)


def test_mean_over_records():
    assert record_mean([0.0] * 10) == wilson(0, 10)
    assert record_mean([0.0, 1.0, 1.0]) == wilson(2, 3)
    assert record_mean([0.5] * 10) == wilson(5, 10)
    # a resample's mean is 0 or .5 with probability 1/4 each: both are beyond 2.5%
    assert record_mean([0.0, 0.5]) == Interval(0.25, 0.0, 0.5)
    values = np.linspace(0, 1, 200).tolist()
    half = 1.96 * np.std(values) / np.sqrt(200)
    interval = record_mean(values)
    assert (interval.low, interval.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.003)
    assert record_mean(values) == interval


def test_crossed_mean_by_hand():
    # two seeds, three items. Seed means 2, 4: variance 2, / 2 seeds = 1. Item means 2, 2.5, 4.5:
    # variance 1.75, / 3 = .58333. Row 0 less its mean, less the item's, plus 3: -1, -.5, 1.5;
    # squares twice: 7, of 2 degrees of freedom, / 6 cells = .58333: items have no part of their own
    estimate = crossed_estimate([[0.0, 1.0, 5.0], [4.0, 4.0, 4.0]])
    assert (estimate.mean, estimate.by_seed) == (3.0, pytest.approx(1.0))
    assert (estimate.by_item, estimate.noise) == (pytest.approx(1.75 / 3), pytest.approx(1.75 / 3))
    assert estimate.half_width() == pytest.approx(12.706, abs=1e-3)
    # item means 1, 3, 8: variance 13, / 3; no residual; seed means 3.5, 4.5
    interval = crossed_mean([[0.5, 2.5, 7.5], [1.5, 3.5, 8.5]])
    half = (12.706**2 * 0.25 + 4.303**2 * 13 / 3) ** 0.5
    assert (interval.low, interval.high) == pytest.approx((4 - half, 4 + half), abs=3e-3)


@pytest.mark.parametrize(
    ("values", "half"),
    [
        # seed means .5, .5, item means .5, .5: one further item without effect is 4.303 * .5 / 3
        ([[0.0, 1.0], [1.0, 0.0]], 0.7172),
        # seed means 2, 2; item means 1, 2, 3: 1/3, and the residual as much; these seeds' own
        # items still differ by 1/3
        ([[0.0, 2.0, 4.0], [2.0, 2.0, 2.0]], 4.303 / 3**0.5),
        ([[1.0, 2.0, 3.0]], 4.303 / 3**0.5),  # one seed: the t interval of the items
        ([[1.0], [2.0], [3.0]], 12.706),  # one item says little about others: 12.706 * 2 / 2
        # items that agree: t with N degrees of freedom * .25 / (N + 1)
        *(
            (np.full((2, n), 0.25), t * 0.25 / (n + 1))
            for n, t in ((2, 4.303), (3, 3.182), (8, 2.306), (120, 1.980))
        ),
        (np.zeros((2, 5)), 0.0),
    ],
)
def test_lower_bounds_of_the_crossed_interval(values, half):
    assert crossed_estimate(values).half_width() == pytest.approx(half, abs=1e-3)


def simulated(seeds, seed_sd, item_sd, noise_sd, trials=1000):
    """Tables of seeds by 40 items around a true mean of .5."""
    rng = np.random.default_rng(seeds)
    for _ in range(trials):
        values = 0.5 + seed_sd * rng.normal(size=(seeds, 1)) + item_sd * rng.normal(size=40)
        yield values + noise_sd * rng.normal(size=(seeds, 40))


@pytest.mark.slow
@pytest.mark.parametrize(
    "spread",  # number of seeds; standard deviations of seeds, items and their cells
    [
        *((2, 0.06, 0.1, 0.1), (2, 0.03, 0.3, 0.4), (2, 0.15, 0.4, 0.4), (2, 0.005, 0.4, 0.1)),
        *((3, 0.3, 0.05, 0.05), (3, 0.05, 0.3, 0.3), (5, 0.3, 0.3, 1.0), (5, 1.0, 0.1, 0.3)),
        *((8, 0.3, 0.3, 0.3), (8, 0.0, 0.3, 0.3), (5, 1.0, 0.0, 0.0)),
    ],
)
def test_crossed_mean_covers_without_waste(spread):
    held = [each.low <= 0.5 <= each.high for each in map(crossed_mean, simulated(*spread))]
    # three standard errors of a share of 1000 are 2 points; with two seeds t is 12.7 times each
    # component of theirs: if items vary as well, it covers more
    assert 0.93 <= np.mean(held) <= (1.0 if spread[0] == 2 else 0.99)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seeds", [2, 8])
def test_holm_holds_for_seven_arms_together(seeds, shared):
    """No arm differs: one of seven is called different in at most 5 of 100 studies."""
    rng, wrong, trials = np.random.default_rng(seeds), 0, 300
    for _ in range(trials):
        arms = rng.normal(size=(8, seeds, 1)) + 0.1 * rng.normal(size=(8, seeds, 20))
        differences = arms[1:] - arms[0] if shared else arms[1:]
        wrong += min(holm([crossed_estimate(values).p for values in differences])) < 0.05
    # three standard errors of a share of 300 are 3.8 points
    assert wrong / trials <= 0.05 + 0.038


def test_p_by_hand():
    # items agree: 1, 2, 3 have mean 2 and error 1 / sqrt(3); t = 2 sqrt(3), 2 degrees of freedom,
    # whose tail is 1 - t / sqrt(2 + t^2)
    t = 2 * 3**0.5
    estimate = crossed_estimate(np.array([[1.0], [2.0], [3.0]]) + np.zeros(50))
    assert estimate.p == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert crossed_estimate([[0.0], [0.0]]).p == 1.0
    assert crossed_estimate(np.full((2, 50), 0.5)).p < 1e-6
    assert crossed_estimate([[0.7]]).p == pytest.approx(cauchy_tail(2.0), abs=1e-6)
    # two seeds, whatever the number of items: one degree of freedom
    many = np.array([[1.0], [2.0]]) + np.zeros(50)
    assert crossed_estimate(many).p == pytest.approx(cauchy_tail(3.0))


@given(
    arrays(
        float,
        st.tuples(st.integers(1, 5), st.integers(2, 6)),
        elements=st.floats(-1, 1).map(lambda value: round(value, 3)),
    )
)
def test_p_and_interval_never_disagree(values):
    estimate = crossed_estimate(values)
    if abs(abs(estimate.mean) - estimate.half_width()) > 1e-6:
        significant = estimate.interval.low > 0 or estimate.interval.high < 0
        assert (estimate.p < 0.05) == significant


def power(seeds, spread, comparisons):
    """How often a difference of the named size is detected, by the strictest of Holm's steps."""
    estimates = [crossed_estimate(v - 0.5) for v in simulated(seeds, *spread)]
    effect = np.mean([each.minimum_detectable_effect(comparisons) for each in estimates])
    level = 0.05 / comparisons
    return np.mean([each.mean + effect > each.half_width(level) for each in estimates])


@pytest.mark.slow
@pytest.mark.parametrize("spread", [(0.06, 0.1, 0.1), (0.005, 0.4, 0.1), (0.15, 0.4, 0.4)])
def test_minimum_detectable_effect_has_the_stated_power(spread):
    # three standard errors of a share of 1000 are 4 points
    for seeds, comparisons in ((5, 1), (8, 1), (8, 7)):
        assert 0.71 <= power(seeds, spread, comparisons) <= 0.86
    for seeds, comparisons in ((3, 1), (5, 7)):
        assert 0.63 <= power(seeds, spread, comparisons) <= 0.85


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        *((t_critical, (0,), "degrees=0"), (record_mean, ([],), "empty")),
        *((wilson, given, "successes of") for given in ((0, 0), (-1, 3), (4, 3))),
        *((crossed_mean, (values,), "seeds by items") for values in ([], [0.5], [[]])),
    ],
)
def test_refusals(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_superiority_holm_and_verdict_by_hand():
    words = {(0.1, 0.2): "better", (-0.2, -0.1): "worse"}
    for low, high in (*words, (-0.1, 0.1), (0.0, 0.1), (-0.1, 0.0)):
        word = words.get((low, high), "not distinguishable")
        assert verdict(Interval((low + high) / 2, low, high)) == word
    assert prob_superiority([-1.0, 0.0, 1.0, 2.0]) == 0.625  # 2 above, half of the one at 0
    # .01 * 3, .02 * 2, .03 * 1 -> .03, .04, and .03 not below the .04 before it
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
