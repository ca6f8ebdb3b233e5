"""Intervals: against hand-worked numbers, published tables and simulations with a known truth."""

import numpy as np
import pytest

from weft_rl.stats import (
    Interval,
    bootstrap_mean,
    crossed_estimate,
    crossed_mean,
    hierarchical_bootstrap,
    holm,
    percentile_interval,
    record_mean,
    share_above,
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
    # two seeds, two items: mean 4; seed means 2.5, 5.5: their variance 4.5, / 2 seeds = 2.25;
    # item means 2, 6: variance 8, / 2 items = 4; residuals +-.5: sum of squares 1, 1 degree of
    # freedom, / 4 cells = .25; variance 2.25 + 4 - .25 = 6
    found = crossed_mean([[1.0, 4.0], [3.0, 8.0]])
    assert found.mean == 4.0
    half = 12.706 * 6**0.5
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half), abs=1e-3)


def test_crossed_mean_keeps_the_larger_part():
    # an interaction alone: seed means .5, .5 and item means .5, .5, residuals +-.5: 0 + 0 - .25 < 0
    assert crossed_mean([[0.0, 1.0], [1.0, 0.0]]) == Interval(0.5, 0.5, 0.5)


def test_one_seed_or_one_item():
    assert crossed_mean([[0.0, 1.0]]) == bootstrap_mean([0.0, 1.0])
    # items cannot vary: the t interval of 1, 2, 3 is 2 -/+ 4.303 * 1 / sqrt(3)
    found = crossed_mean([[1.0], [2.0], [3.0]])
    assert (found.mean, found.high) == (2.0, pytest.approx(2 + 4.303 / 3**0.5, abs=1e-3))


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


def test_degrees_of_freedom_by_hand():
    # two seeds, two items as above: 6^2 / (2.25^2 / 1 + 4^2 / 1 + .25^2 / 1) = 36 / 21.125 = 1.7
    assert crossed_estimate([[1.0, 4.0], [3.0, 8.0]]).freedom == 1
    # seeds alone differ: S - 1; items alone: N - 1
    rng = np.random.default_rng(0)
    assert crossed_estimate(rng.normal(size=(5, 1)) + np.zeros(30)).freedom == 4
    assert crossed_estimate(np.zeros((5, 1)) + rng.normal(size=30)).freedom == 29
    with pytest.raises(ValueError, match="one seed"):
        crossed_estimate([[1.0, 2.0]])


# number of seeds; what seeds, items and their cells spread
SPREADS = [(3, 0.3, 0.05, 0.05), (3, 0.05, 0.3, 0.3), (8, 0.3, 0.3, 0.3), (8, 0.0, 0.3, 0.3)]
NOISY = (8, 0.0, 0.02, 0.4)


def simulated(seeds, seed_sd, item_sd, noise_sd, trials=400):
    """Tables of seeds by 40 items around a true mean of .5."""
    rng = np.random.default_rng(seeds)
    for _ in range(trials):
        values = 0.5 + seed_sd * rng.normal(size=(seeds, 1)) + item_sd * rng.normal(size=40)
        yield values + noise_sd * rng.normal(size=(seeds, 40))


@pytest.mark.parametrize("spread", SPREADS)
def test_the_bootstrap_covers(spread):
    held = []
    for values in simulated(*spread):
        draws = hierarchical_bootstrap(values, resamples=500)
        found = percentile_interval(values.mean(), draws)
        held.append(found.low <= 0.5 <= found.high)
    # a share of 400 has a standard error of 1.1 points; percentiles of 500 cost another point
    assert 0.91 <= np.mean(held) <= 0.995


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
    # items cannot vary: 1, 2, 3 have mean 2 and error 1 / sqrt(3); t = 2 sqrt(3), 2 degrees
    found = crossed_estimate([[1.0], [2.0], [3.0]])
    t = 2 * 3**0.5
    assert found.p == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert crossed_estimate([[0.0], [0.0]]).p == 1.0
    assert crossed_estimate([[0.5], [0.5]]).p == 0.0
    # seeds count, not items: with 2 of them one degree of freedom, Cauchy's law
    many = np.array([[1.0], [2.0]]) + np.zeros(50)
    assert crossed_estimate(many).p == pytest.approx(1 - 2 * np.arctan(3.0) / np.pi)


@pytest.mark.parametrize("spread", SPREADS)
def test_crossed_mean_covers_without_waste(spread):
    held = [found.low <= 0.5 <= found.high for found in map(crossed_mean, simulated(*spread, 1000))]
    assert 0.93 <= np.mean(held) <= 0.985


# with three seeds the error itself is so uncertain that it is two times in three
@pytest.mark.parametrize(("seeds", "least"), [(3, 0.64), (5, 0.72), (8, 0.74)])
def test_the_smallest_visible_difference_is_found_three_times_in_four(seeds, least):
    tables = list(simulated(seeds, 0.2, 0.1, 0.3, 600))
    size = float(np.mean([crossed_estimate(v).smallest_visible() for v in tables]))
    seen = [crossed_estimate(v - 0.5 + size).interval.low > 0 for v in tables]
    assert least <= np.mean(seen) <= 0.88


def test_one_of_several_comparisons_must_be_larger_to_be_seen():
    tables = list(simulated(8, 0.2, 0.1, 0.3, 600))
    size = float(np.mean([crossed_estimate(v).smallest_visible(7) for v in tables]))
    # the strictest of Holm's steps: .05 / 7
    seen = [crossed_estimate(v - 0.5 + size).p < 0.05 / 7 for v in tables]
    assert 0.72 <= np.mean(seen) <= 0.92


def test_bootstrap_draws_repeat_and_know_one_seed():
    values = np.random.default_rng(0).normal(size=(4, 20))
    assert np.array_equal(hierarchical_bootstrap(values), hierarchical_bootstrap(values))
    one = hierarchical_bootstrap(values[:1])
    assert one.std() == pytest.approx(values[0].std() / 20**0.5, rel=0.05)


def test_records_of_one_model_that_are_all_wrong_are_no_certainty():
    assert record_mean([0.0] * 10) == wilson(0, 10)
    assert record_mean([0.0, 1.0, 1.0]) == wilson(2, 3)
    assert record_mean([0.0, 0.5]) == bootstrap_mean([0.0, 0.5])


def test_share_above_by_hand():
    assert share_above([-1.0, 0.0, 1.0, 2.0]) == 0.625  # 2 above, half of the one at 0


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
