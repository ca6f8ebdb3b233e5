"""The forward process, against hand-worked numbers and frequencies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.noise import (
    TIME_MARGIN,
    antithetic_times,
    mask_probability,
    mask_tokens,
    sample_time,
    stratified_times,
)

MASK = 9


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(
    ("t", "beta", "beta_ref", "wanted"),
    [
        (0.5, 1.0, 1.0, 0.5),
        (0.5, 2.0, 1.0, 0.75),  # 1 - 0.5^2
        (0.19, 2.0, 4.0, 0.1),  # 1 - 0.81^(1/2)
        (0.9, 0.7, 0.7, 0.9),  # a constant rate: the time itself
        (1e-8, 2.0, 1.0, 2e-8),  # r t to first order; 1 - (1 - 1e-8) is 0 in float32
    ],
)
def test_mask_probability_by_hand(t, beta, beta_ref, wanted):
    found = mask_probability(tensor([[t]]), tensor([[beta]]), tensor([[beta_ref]]))
    assert_close(found, tensor([[wanted]]))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"t must have shape \(2, 1\)"):
        mask_probability(torch.rand(2), torch.rand(2, 3), torch.rand(2, 1))
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match="1 generators for 2 rows"):
        mask_tokens(ones.long(), ones, ones.bool(), MASK, generators(1))


RATE = st.floats(0, 2.0**100, width=32)


@given(
    rates=st.lists(RATE, min_size=2, max_size=6),
    reference=st.floats(2.0**-100, 2.0**100, width=32),
    t=st.floats(0, 1, exclude_min=True, exclude_max=True, width=32),
)
def test_probability_grows_with_the_rate_within_zero_and_one(rates, reference, t):
    beta, t, beta_ref = tensor([sorted(rates)]), tensor([[t]]), tensor([[reference]])
    probability = mask_probability(t, beta, beta_ref)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (probability.diff() >= 0).all()


@given(rates=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), t=st.floats(0.001, 0.999))
def test_probability_depends_on_the_ratio_of_rates_alone(rates, t):
    """float64: the same to rounding when the unit of the rates changes."""
    beta, time = tensor([rates], dtype=torch.float64), tensor([[t]], dtype=torch.float64)
    one = mask_probability(time, beta, beta.mean(-1, keepdim=True))
    other = mask_probability(time, 7 * beta, (7 * beta).mean(-1, keepdim=True))
    assert one.dtype == torch.float64
    assert_close(one, other, rtol=1e-12, atol=1e-12)


BATCHES = 4000
DESIGNS = {
    "independent": lambda count, generator: sample_time([generator] * count),
    "stratified": stratified_times,
    "antithetic": antithetic_times,
}


def times(design, count):
    """(BATCHES, count): that many batches from one stream."""
    generator = torch.Generator().manual_seed(11)
    return torch.cat([DESIGNS[design](count, generator).T for _ in range(BATCHES)])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5, 8])
@pytest.mark.parametrize("design", DESIGNS)
def test_every_row_of_a_design_is_uniform_within_the_margin(design, count):
    """Kolmogorov-Smirnov for each row; 1.95 / sqrt(4000) is passed by chance once in 1,000."""
    drawn = (times(design, count) - TIME_MARGIN) / (1 - 2 * TIME_MARGIN)
    assert drawn.shape == (BATCHES, count)
    assert drawn.min() >= -1e-6
    assert drawn.max() <= 1 + 1e-6
    expected = (torch.arange(BATCHES)[:, None] + 0.5) / BATCHES
    assert (drawn.sort(dim=0).values - expected).abs().max() < 1.95 / BATCHES**0.5


def test_strata_and_pairs():
    drawn = ((times("stratified", 8) - TIME_MARGIN) / (1 - 2 * TIME_MARGIN) * 8).floor()
    assert torch.equal(drawn.sort(dim=1).values, torch.arange(8.0).expand(BATCHES, 8))
    paired = times("antithetic", 7)
    assert_close(paired[:, 0:6:2] + paired[:, 1:6:2], torch.ones(BATCHES, 3))


@pytest.mark.slow
@pytest.mark.parametrize(("design", "ratio"), [("stratified", 0.03), ("antithetic", 0.18)])
def test_a_design_keeps_the_expectation_of_a_loss_and_lowers_its_variance(design, ratio):
    """f: the expected loss at t of a sequence whose tokens get harder as their context is masked.

    Hand: on [a, b] = [margin, 1 - margin], the mean of 1 + 3 t^2 is 1 + (b^3 - a^3) / (b - a)."""
    a, b = TIME_MARGIN, 1 - TIME_MARGIN
    exact = 1 + (b**3 - a**3) / (b - a)
    means = {name: (1 + 3 * times(name, 8).double() ** 2).mean(1) for name in DESIGNS}
    for found in means.values():
        assert abs(found.mean() - exact) < 4 * found.std() / BATCHES**0.5
    # by hand, to first order in 1/8 for the strata: independent 9 (1/5 - 1/9) / 8 = 0.1, strata
    # 12 / (12 * 8^3) = 0.00195, pairs var(3 (t^2 - t)) / 4 = 0.0125: ratios 0.02 and 0.125;
    # a variance from 4,000 batches has a relative error of sqrt(2 / 4000) = 0.022
    independent = means["independent"].var()
    assert means[design].var() * (1 + 4 * 0.022) < ratio * independent * (1 - 4 * 0.022)


def test_masking_frequency_and_what_is_never_masked():
    x0 = torch.arange(4).expand(20000, 4)
    probability = tensor([[0.0, 0.25, 1.0, 1.0]]).expand(20000, 4)
    maskable = tensor([[True, True, True, False]]).expand(20000, 4)
    xt, masked = mask_tokens(x0, probability, maskable, MASK, torch.Generator().manual_seed(0))
    share = masked.float().mean(0)
    assert share[[0, 2, 3]].tolist() == [0, 1, 0]
    assert share[1] == pytest.approx(0.25, abs=0.01)  # 3 standard errors: 3 * 0.433 / 141
    assert torch.equal(xt, torch.where(masked, MASK, x0))


def test_a_row_is_masked_alike_alone_in_a_batch_and_padded():
    x0 = torch.arange(6)[None]
    probability = torch.full((1, 6), 0.5)
    everywhere = torch.ones(1, 6, dtype=torch.bool)
    before = torch.random.get_rng_state()
    alone, _ = mask_tokens(x0, probability, everywhere, MASK, generators(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), x0], dim=1)
    batch = torch.cat([padded, padded])
    shown = torch.cat([torch.zeros(1, 2, dtype=torch.bool), everywhere], dim=1).expand(2, 8)
    both, _ = mask_tokens(batch, torch.full((2, 8), 0.5), shown, MASK, generators(4, 3))
    assert torch.equal(both[1, 2:], alone[0])
    assert not torch.equal(both[0, 2:], alone[0])
