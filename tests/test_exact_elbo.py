"""Times and weights that keep the exact bound under unequal rates."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.exact_elbo import elbo_weights, survival_mask_probability, token_log_survival
from weft_rl.diffusion.rates import mean_rate, usable_rates

LN2 = 0.6931471805599453
TWO, REF = tensor([[1.0, 3.0]]), tensor([[2.0]])  # ratios 1/2 and 3/2
ALL = tensor([[True, True]])


def generators(count, seed=0):
    return [torch.Generator().manual_seed(1000 * seed + row) for row in range(count)]


def test_probability_by_hand():
    # 1 - exp(-ln 2) = 1/2 and 1 - exp(-3 ln 2) = 7/8
    found = survival_mask_probability(tensor([[2 * LN2]]), TWO, REF)
    assert_close(found, tensor([[0.5, 0.875]]))


def test_weights_by_hand():
    # at clock 2 ln 2 slopes are 1/2 * 1/2 = 1/4 and 3/2 * 1/8 = 3/16, of mean 7/32
    found = elbo_weights(tensor([[2 * LN2]]), TWO, REF, ALL)
    assert_close(found, tensor([[8 / 7, 6 / 7]]))


def test_the_clock_by_hand_and_only_of_answer_tokens():
    """own = 1/2 of a token with ratio 1/2 or 3/2 is clock 2 ln 2 or 2/3 ln 2."""
    rows = 400
    beta = tensor([[9.0, 1.0, 3.0]]).expand(rows, -1)
    answer = tensor([[False, True, True]]).expand(rows, -1)
    found = token_log_survival(
        torch.full((rows, 1), 0.5), beta, REF.expand(rows, -1), answer, generators(rows)
    )
    slow = torch.isclose(found, tensor(2 * LN2))
    fast = torch.isclose(found, tensor(2 / 3 * LN2))
    assert (slow | fast).all()
    # each is chosen half the time: 200 of 400, standard deviation 10
    assert 160 < slow.sum() < 240


@pytest.mark.parametrize("scale", [1.0, 0.01, 100.0])
def test_weights_are_the_slopes_over_their_mean(scale):
    generator = torch.Generator().manual_seed(3)
    beta = torch.rand(5, 7, generator=generator, dtype=torch.float64) * scale
    answer = torch.rand(5, 7, generator=generator) < 0.7
    answer[:, 0] = True
    beta_ref = mean_rate(beta, answer)
    t = torch.rand(5, 1, generator=generator, dtype=torch.float64)
    ratio = beta / beta_ref
    slope = ratio * (1 - t) ** (ratio - 1) * answer  # d/dt of 1 - (1 - t)^r
    wanted = slope / (slope.sum(-1, keepdim=True) / answer.sum(-1, keepdim=True))
    assert_close(elbo_weights(-torch.log1p(-t), beta, beta_ref, answer), wanted)


@given(
    rates=st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=6),
    own=st.floats(2**-10, 1 - 2**-24, width=32),
    seed=st.integers(0, 9),
)
def test_weights_are_bounded_by_the_number_of_tokens(rates, own, seed):
    answer = torch.ones(1, len(rates), dtype=torch.bool)
    beta = usable_rates(tensor([rates]), answer)
    beta_ref = mean_rate(beta, answer)
    clock = token_log_survival(tensor([[own]]), beta, beta_ref, answer, generators(1, seed))
    weights = elbo_weights(clock, beta, beta_ref, answer)
    assert clock.isfinite().all()
    assert (weights >= 0).all()
    assert_close(weights.sum(), tensor(float(len(rates))), rtol=1e-4, atol=1e-4)
    # what the loss divides by
    assert (survival_mask_probability(clock, beta, beta_ref) > 0).all()


def test_equal_rates_leave_the_time_as_drawn_and_weigh_one():
    beta, answer = torch.full((3, 4), 0.7), torch.ones(3, 4, dtype=torch.bool)
    beta_ref, own = mean_rate(beta, answer), tensor([[0.1], [0.5], [0.99]])
    clock = token_log_survival(own, beta, beta_ref, answer, generators(3))
    assert_close(clock, -torch.log1p(-own))
    assert_close(elbo_weights(clock, beta, beta_ref, answer), torch.ones(3, 4))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="log_survival"):
        survival_mask_probability(tensor([0.5]), TWO, REF)
    with pytest.raises(ValueError, match="answer"):
        elbo_weights(REF, TWO, REF, tensor([[True]]))
    with pytest.raises(ValueError, match="probability"):
        token_log_survival(tensor([0.5]), TWO, REF, ALL, generators(1))
