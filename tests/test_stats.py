"""Intervals: against hand-worked numbers, published tables and simulations with a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weft_rl.stats import (
    Interval,
    bootstrap_mean,
    crossed_estimate,
    crossed_mean,
    hierarchical_bootstrap,
    holm,
    percentile_interval,
    prob_superiority,
    record_mean,
    t95,
    t_point,
    t_tail,
    verdict,
    wilson,
)


@pytest.mark.parametrize(
    ("degrees", "point"),
    # a printed table of Student's t, two-sided 95 %
    [(1, 12.706), (2, 4.303), (10, 2.228), (30, 2.042), (40, 2.021), (60, 2.000), (120, 1.980)],
)
def test_t_quantiles(degrees, point):
    assert t95(degrees) == pytest.approx(point, abs=6e-4)


@pytest.mark.parametrize(
    ("level", "degrees", "point"),
    # from the same kind of table: 20, 1 and .1 % on both sides together
    [(0.2, 1, 3.078), (0.2, 8, 1.397), (0.01, 1, 63.657), (0.01, 7, 3.499), (0.001, 7, 5.408)],
)
def test_other_points_and_their_tails(level, degrees, point):
    assert t_point(level, degrees) == pytest.approx(point, abs=6e-4)
    assert t_tail(-point, degrees) == t_tail(point, degrees) == pytest.approx(level, rel=2e-3)


def test_tails_in_closed_form():
    # one degree of freedom is Cauchy's law: 1 - 2 atan(t) / pi; two: 1 - t / sqrt(2 + t^2)
    for t in (0.0, 0.5, 3.0, 400.0):
        assert t_tail(t, 1) == pytest.approx(1 - 2 * np.arctan(t) / np.pi, rel=1e-9, abs=1e-12)
        assert t_tail(t, 2) == pytest.approx(1 - t / (2 + t * t) ** 0.5, rel=1e-6, abs=1e-12)


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
    # two seeds, three items. Seed means 2, 4: their variance 2, / 2 seeds = 1. Item means 2, 2.5,
    # 4.5: variance 1.75, / 3 = .58333. Residuals -+1, -+.5, +-.5 (rows 0, 1, 5 and 4, 4, 4):
    # row 0 less its mean, less the item's, plus 3: -1, -.5, 1.5; squares twice: 2 * 3.5 = 7, of
    # 2 degrees of freedom, / 6 cells = .58333: nothing is left of the items' own part
    found = crossed_estimate([[0.0, 1.0, 5.0], [4.0, 4.0, 4.0]])
    assert (found.mean, found.by_seed) == (3.0, pytest.approx(1.0))
    assert (found.by_item, found.noise) == (pytest.approx(1.75 / 3), pytest.approx(1.75 / 3))
    assert found.half_width() == pytest.approx(12.706, abs=1e-3)
    # items 2 and 6 apart: item means 1, 3, 8, variance 13, / 3; no residual; seed means 3.5, 4.5
    found = crossed_mean([[0.5, 2.5, 7.5], [1.5, 3.5, 8.5]])
    half = (12.706**2 * 0.25 + 4.303**2 * 13 / 3) ** 0.5
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half), abs=3e-3)


def test_an_interval_is_not_narrower_than_for_these_seeds():
    # an interaction alone: seed means .5, .5 and item means .5, .5: no part is above 0, and one
    # further item without any effect would make it 4.303 * .5 / 3
    found = crossed_mean([[0.0, 1.0], [1.0, 0.0]])
    assert (found.low, found.high) == pytest.approx((0.5 - 0.7172, 0.5 + 0.7172), abs=1e-4)
    # seed means 2, 2; item means 1, 2, 3: variance 1, / 3; residuals -+1, 0, +-1: squares 4, of 2
    # degrees, / 6 cells = 1/3, which leaves nothing; but these seeds' own items differ by 1/3
    found = crossed_estimate([[0.0, 2.0, 4.0], [2.0, 2.0, 2.0]])
    assert (found.by_seed, found.by_item - found.noise) == (0.0, pytest.approx(0.0))
    assert found.half_width() == pytest.approx(4.303 / 3**0.5, abs=1e-3)


def test_one_seed_or_one_item():
    # seeds cannot vary: the t interval of 1, 2, 3 is 2 -/+ 4.303 * 1 / sqrt(3)
    found = crossed_mean([[1.0, 2.0, 3.0]])
    assert (found.mean, found.high) == (2.0, pytest.approx(2 + 4.303 / 3**0.5, abs=1e-3))
    # one item says next to nothing of others: 12.706 * 2 / 2, and Cauchy's law at 2
    found = crossed_estimate([[1.0], [2.0], [3.0]])
    assert found.half_width() == pytest.approx(12.706, abs=1e-3)
    assert crossed_estimate([[0.7]]).p == pytest.approx(1 - 2 * np.arctan(2.0) / np.pi, abs=1e-6)


def test_items_that_all_say_the_same_are_no_certainty():
    # one further item without any effect: 2 -/+ t of N degrees * 2 / (N + 1)
    for items, point in ((2, 4.303), (3, 3.182), (8, 2.306), (120, 1.980)):
        found = crossed_mean(np.full((2, items), 0.25))
        assert found.high == pytest.approx(0.25 + point * 0.25 / (items + 1), abs=1e-4)
    assert crossed_mean(np.zeros((2, 5))) == Interval(0.0, 0.0, 0.0)
    # half of the records are right for both seeds, and one model's equal shares are no certainty
    assert record_mean([0.5] * 10) == wilson(5, 10)


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


# number of seeds; what seeds, items and their cells spread
SPREADS = [(3, 0.3, 0.05, 0.05), (3, 0.05, 0.3, 0.3), (8, 0.3, 0.3, 0.3), (8, 0.0, 0.3, 0.3)]
FEW = [(2, 0.06, 0.1, 0.1), (2, 0.03, 0.3, 0.4), (2, 0.15, 0.4, 0.4), (2, 0.005, 0.4, 0.1)]
NOISY = (8, 0.0, 0.02, 0.4)


def simulated(seeds, seed_sd, item_sd, noise_sd, trials=400):
    """Tables of seeds by 40 items around a true mean of .5."""
    rng = np.random.default_rng(seeds)
    for _ in range(trials):
        values = 0.5 + seed_sd * rng.normal(size=(seeds, 1)) + item_sd * rng.normal(size=40)
        yield values + noise_sd * rng.normal(size=(seeds, 40))


@pytest.mark.parametrize("spread", [*FEW, *SPREADS])
def test_the_bootstrap_covers(spread):
    held = []
    for values in simulated(*spread):
        draws = hierarchical_bootstrap(values, resamples=500)
        found = percentile_interval(values.mean(), draws)
        held.append(found.low <= 0.5 <= found.high)
    # a share of 400 has a standard error of 1.1 points; percentiles of 500 cost another point
    assert 0.91 <= np.mean(held) <= (1.0 if spread[0] == 2 else 0.995)


@pytest.mark.parametrize("spread", [*SPREADS, NOISY])
def test_the_bootstrap_is_as_wide_as_the_crossed_interval(spread):
    widths = []
    for values in simulated(*spread, trials=30):
        draws = percentile_interval(values.mean(), hierarchical_bootstrap(values, resamples=1000))
        crossed = crossed_mean(values)
        widths.append((draws.high - draws.low) / (crossed.high - crossed.low))
    assert 0.9 <= np.mean(widths) <= 1.1


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seeds", [2, 3, 8])
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
    # items are alike: 1, 2, 3 have mean 2 and error 1 / sqrt(3); t = 2 sqrt(3), 2 degrees
    found = crossed_estimate(np.array([[1.0], [2.0], [3.0]]) + np.zeros(50))
    t = 2 * 3**0.5
    assert found.p == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert crossed_estimate([[0.0], [0.0]]).p == 1.0
    assert crossed_estimate(np.full((2, 50), 0.5)).p < 1e-6
    # seeds count, not items: with 2 of them one degree of freedom, Cauchy's law
    many = np.array([[1.0], [2.0]]) + np.zeros(50)
    assert crossed_estimate(many).p == pytest.approx(1 - 2 * np.arctan(3.0) / np.pi)


@pytest.mark.parametrize("spread", [*FEW, *SPREADS])
def test_crossed_mean_covers_without_waste(spread):
    held = [found.low <= 0.5 <= found.high for found in map(crossed_mean, simulated(*spread, 1000))]
    # of two seeds, t is 12.7 times any part of theirs: where items vary as well, it holds more
    assert 0.935 <= np.mean(held) <= (1.0 if spread[0] == 2 else 0.99)


@given(
    arrays(
        float,
        st.tuples(st.integers(1, 5), st.integers(2, 6)),
        elements=st.floats(-1, 1).map(lambda value: round(value, 3)),
    )
)
def test_p_and_interval_never_disagree(values):
    found = crossed_estimate(values)
    if abs(abs(found.mean) - found.half_width()) > 1e-6:
        assert (found.p < 0.05) == (found.interval.low > 0 or found.interval.high < 0)


def power(seeds, spread, comparisons):
    """How often a difference of the size named is found, by the strictest of Holm's steps."""
    tables = [crossed_estimate(v - 0.5) for v in simulated(seeds, *spread, 1000)]
    size = float(np.mean([found.smallest_visible(comparisons) for found in tables]))
    return np.mean([f.mean + size > f.half_width(0.05 / comparisons) for f in tables])


@pytest.mark.parametrize("spread", [(0.06, 0.1, 0.1), (0.005, 0.4, 0.1), (0.15, 0.4, 0.4)])
def test_the_smallest_visible_difference_is_found_as_often_as_told(spread):
    # three standard errors of a share of 1000 are 4 points
    for seeds, comparisons in ((5, 1), (8, 1), (8, 7)):
        assert 0.71 <= power(seeds, spread, comparisons) <= 0.86
    for seeds, comparisons in ((3, 1), (5, 7)):
        assert 0.63 <= power(seeds, spread, comparisons) <= 0.85


def test_bootstrap_draws_repeat_and_know_one_seed():
    values = np.random.default_rng(0).normal(size=(4, 20))
    assert np.array_equal(hierarchical_bootstrap(values), hierarchical_bootstrap(values))
    one = hierarchical_bootstrap(values[:1])
    # 19 degrees of freedom: 2.093 where the normal's point is 1.96
    wider = 2.093 / 1.96
    assert one.std() == pytest.approx(wider * values[0].std(ddof=1) / 20**0.5, rel=0.01)


def test_records_of_one_model_that_are_all_wrong_are_no_certainty():
    assert record_mean([0.0] * 10) == wilson(0, 10)
    assert record_mean([0.0, 1.0, 1.0]) == wilson(2, 3)
    assert record_mean([0.0, 0.5]) == bootstrap_mean([0.0, 0.5])


def test_share_above_by_hand():
    assert prob_superiority([-1.0, 0.0, 1.0, 2.0]) == 0.625  # 2 above, half of the one at 0


def test_holm_by_hand():
    # .01 * 3, .02 * 2, .03 * 1 -> .03, .04, and .03 not below the .04 before it
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


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
