"""The weighted loss, against hand-worked sums; its expectation is in test_objective_exact.py."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.losses import denoising_loss

# two tokens, probabilities (1/2, 1/2) and (1/4, 3/4); x0 is token 0 both times
LOGITS = tensor([[[0.0, 0.0], [0.0, 1.0986122886681098]]])
X0 = tensor([[0, 0]])
ALL = tensor([[True, True]])
LN2 = 0.6931471805599453


@pytest.mark.parametrize(("normalizer", "divisor"), [("answer", 2), ("masked", 1), ("none", 1)])
def test_one_masked_token(normalizer, divisor):
    masked, probability = tensor([[False, True]]), tensor([[0.0, 0.25]])
    # -ln(1/4) / 0.25 = 8 ln 2, over 2 answer tokens, 1 masked token, or 1
    found = denoising_loss(LOGITS, X0, masked, probability, ALL, normalizer=normalizer)
    assert_close(found, tensor(8 * LN2 / divisor))


def test_token_weights():
    probability, weight = tensor([[0.5, 0.5]]), tensor([[3.0, 0.5]])
    # 3 / .5 * ln 2 + .5 / .5 * 2 ln 2 = 8 ln 2, over 2 answer tokens
    assert_close(denoising_loss(LOGITS, X0, ALL, probability, ALL, weight), tensor(4 * LN2))


@pytest.mark.parametrize("normalizer", ["answer", "masked", "none"])
def test_nothing_masked_is_zero_with_a_finite_gradient(normalizer):
    logits = LOGITS.clone().requires_grad_()
    none, zero = torch.zeros_like(ALL), torch.zeros(1, 2)
    loss = denoising_loss(logits, X0, none, zero, ALL, normalizer=normalizer)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_rows_are_normalised_by_themselves():
    """A batch of two lengths is the mean of its rows alone."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 5, generator=generator)
    x0 = torch.randint(0, 5, (2, 4), generator=generator)
    answer = tensor([[False, True, True, True], [False, False, False, True]])
    masked = tensor([[False, True, False, True], [False, False, False, True]])
    probability = torch.full((2, 4), 0.5)
    rows = [
        denoising_loss(*(part[i : i + 1] for part in (logits, x0, masked, probability, answer)))
        for i in range(2)
    ]
    both = denoising_loss(logits, x0, masked, probability, answer)
    assert_close(both, torch.stack(rows).mean())


def test_bfloat16_logits_are_summed_in_float32():
    logits = torch.randn(1, 3, 20000, generator=torch.Generator().manual_seed(0)).bfloat16()
    x0, full = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool)
    expected = -logits.double().log_softmax(-1)[..., 0].mean()
    assert abs(denoising_loss(logits, x0, full, torch.ones(1, 3), full) - expected) < 1e-3
