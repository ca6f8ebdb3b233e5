"""The forward process, against hand-worked numbers and frequencies."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.noise import (
    TIME_MARGIN,
    mask_probability,
    mask_slope,
    mask_tokens,
    sample_time,
)

MASK = 9


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_twice_the_rate():
    t, beta, beta_ref = tensor([[0.5]]), tensor([[1.0, 2.0]]), tensor([[1.0]])
    # 1 - 0.5^1 = 0.5 and 1 - 0.5^2 = 0.75
    assert_close(mask_probability(t, beta, beta_ref), tensor([[0.5, 0.75]]))


def test_half_the_reference_rate():
    # 1 - (1 - 0.19)^(1/2) = 1 - 0.9 = 0.1
    found = mask_probability(tensor([[0.19]]), tensor([[2.0]]), tensor([[4.0]]))
    assert_close(found, tensor([[0.1]]))


def test_constant_rate_is_the_time_itself():
    t = tensor([[0.1], [0.9]])
    beta = torch.full((2, 3), 0.7)
    assert_close(mask_probability(t, beta, tensor([[0.7], [0.7]])), t.expand(2, 3))


def test_tiny_times_do_not_vanish_in_float32():
    # to first order 1 - (1 - t)^r = r t; 1 - (1 - 1e-8) is 0 in float32
    found = mask_probability(tensor([[1e-8]]), tensor([[2.0]]), tensor([[1.0]]))
    assert_close(found, tensor([[2e-8]]))


def test_slope_is_the_derivative():
    t = tensor([[0.37]], dtype=torch.float64)
    beta, beta_ref = tensor([[0.2, 1.0, 3.0]]), tensor([[1.4]])
    ratio = (beta / beta_ref).double()
    step = 1e-5
    change = (1 - (1 - t - step) ** ratio) - (1 - (1 - t + step) ** ratio)
    assert_close(mask_slope(t.float(), beta, beta_ref), (change / (2 * step)).float())


def test_slope_of_a_constant_rate_is_one():
    assert_close(mask_slope(tensor([[0.8]]), tensor([[2.0]]), tensor([[2.0]])), tensor([[1.0]]))


@pytest.mark.parametrize("function", [mask_probability, mask_slope])
def test_times_without_their_column_are_refused(function):
    with pytest.raises(ValueError, match=r"t must have shape \(2, 1\)"):
        function(torch.rand(2), torch.rand(2, 3), torch.rand(2, 1))


def test_time_keeps_its_margin():
    t = sample_time(generators(*range(2000)))
    assert t.shape == (2000, 1)
    assert TIME_MARGIN <= t.min() < 0.01
    assert 0.99 < t.max() <= 1 - TIME_MARGIN
    assert t.mean() == pytest.approx(0.5, abs=0.02)  # 3 standard errors: 3 * 0.289 / sqrt(2000)


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
    alone, _ = mask_tokens(x0, probability, everywhere, MASK, generators(3))
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), x0], dim=1)
    batch = torch.cat([padded, padded])
    shown = torch.cat([torch.zeros(1, 2, dtype=torch.bool), everywhere], dim=1).expand(2, 8)
    both, _ = mask_tokens(batch, torch.full((2, 8), 0.5), shown, MASK, generators(4, 3))
    assert torch.equal(both[1, 2:], alone[0])
    assert not torch.equal(both[0, 2:], alone[0])


def test_one_generator_a_row_or_none():
    with pytest.raises(ValueError, match="1 generators for 2 rows"):
        mask_tokens(
            torch.zeros(2, 3, dtype=torch.long),
            torch.ones(2, 3),
            torch.ones(2, 3, dtype=torch.bool),
            MASK,
            generators(1),
        )


def test_the_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    ones = torch.ones(1, 3)
    mask_tokens(ones.long(), ones, ones.bool(), MASK, generators(1))
    sample_time(generators(1))
    assert torch.equal(torch.random.get_rng_state(), before)
