"""Masking rates, against hand-worked entropies and their limits."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.rates import mean_rate, token_rates, usable_rates

X0 = tensor([[0, 1, 0]])
ANSWER = tensor([[False, True, True]])
# position 1: probabilities 3/4 and 1/4; position 2: 1/2 and 1/2
LOGITS = tensor([[[5.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]]])
# -(3/4) ln(3/4) - (1/4) ln(1/4) = 0.215762 + 0.346574
H1 = 0.5623351446188083


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uniform", [0, 1, 1]),
        ("entropy", [0, H1, math.log(2)]),
        ("sqrt_entropy", [0, math.sqrt(H1), math.sqrt(math.log(2))]),
        ("nll", [0, math.log(4), math.log(2)]),  # x0 is token 1 (1/4), then token 0 (1/2)
    ],
)
def test_hand_worked(kind, expected):
    assert_close(token_rates(kind, LOGITS, X0, ANSWER), tensor([expected], dtype=torch.float32))


def test_a_certain_prediction_has_rate_zero_and_no_nan():
    logits = tensor([[[1000.0, 0.0], [0.0, -math.inf], [300.0, 300.0 - 1e-6]]])
    rates = token_rates("sqrt_entropy", logits, X0, torch.ones_like(ANSWER))
    assert rates.isfinite().all()
    assert rates[0, :2].tolist() == [0, 0]


def test_bfloat16_logits_are_reduced_in_float32():
    logits = torch.randn(2, 5, 4000, generator=torch.Generator().manual_seed(0)).bfloat16()
    x0 = torch.zeros(2, 5, dtype=torch.long)
    answer = torch.ones(2, 5, dtype=torch.bool)
    p = logits.double().softmax(-1)
    expected = -(p * p.log()).sum(-1)
    found = token_rates("entropy", logits, x0, answer)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-3


def test_an_unknown_kind_is_named_with_the_list():
    with pytest.raises(ValueError, match=r"kind='cubic': .*uniform, sqrt_entropy, entropy, nll"):
        token_rates("cubic", LOGITS, X0, ANSWER)


def test_mean_is_over_the_answer_only():
    beta = tensor([[9.0, 1.0, 3.0], [9.0, 9.0, 9.0]])
    answer = tensor([[False, True, True], [False, False, False]])
    assert_close(mean_rate(beta, answer), tensor([[2.0], [0.0]]))


def test_all_zero_rates_become_uniform():
    found = usable_rates(tensor([[0.0, 0.0, 0.0]]), ANSWER)
    assert found.tolist() == [[0, 1, 1]]


def test_a_small_rate_is_lifted_to_a_hundredth_of_the_mean():
    # mean of (0, 2) is 1, so the floor is 0.01
    assert_close(usable_rates(tensor([[5.0, 0.0, 2.0]]), ANSWER), tensor([[0.0, 0.01, 2.0]]))
