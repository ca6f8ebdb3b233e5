"""Masking rates, against hand-worked entropies and their limits."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from weft_rl.diffusion.noise import TIME_MARGIN, mask_probability
from weft_rl.diffusion.rates import (
    RateKind,
    mean_rate,
    token_entropy,
    token_nll,
    token_rates,
    usable_rates,
)

X0 = tensor([[0, 1, 0]])
ANSWER = tensor([[False, True, True]])
X_WIDE = torch.randint(0, 126_464, (2, 35), generator=torch.Generator().manual_seed(1))
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


def test_means_and_floors_by_hand():
    beta = tensor([[9.0, 1.0, 3.0], [9.0, 9.0, 9.0]])
    answer = tensor([[False, True, True], [False, False, False]])
    assert_close(mean_rate(beta, answer), tensor([[2.0], [0.0]]))
    # all zero: uniform; the mean of (0, 2) is 1, so the floor is 0.01
    assert usable_rates(tensor([[0.0, 0.0, 0.0]]), ANSWER).tolist() == [[0, 1, 1]]
    assert_close(usable_rates(tensor([[5.0, 0.0, 2.0]]), ANSWER), tensor([[0.0, 0.01, 2.0]]))
    with pytest.raises(ValueError, match="kind='cubic'"):
        token_rates("cubic", LOGITS, X0, ANSWER)


class LargestAllocation(TorchDispatchMode):
    """Counts the elements of the largest floating tensor that an operation makes anew."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not out._is_view() and out.is_floating_point():
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("reduce", [token_entropy, lambda logits: token_nll(logits, X_WIDE)])
def test_a_large_vocabulary_is_reduced_without_a_second_copy(reduce):
    """LLaDA's 126,464 words; 33 rows fit a chunk, so 35 + 35 rows end in two ragged chunks."""
    logits = torch.randn(2, 35, 126_464, generator=torch.Generator().manual_seed(0)) * 4
    log_p = logits.log_softmax(-1)
    whole = -log_p.gather(-1, X_WIDE[..., None])[..., 0]
    if reduce is token_entropy:
        whole = -(log_p.exp() * log_p).sum(-1)
    with LargestAllocation() as seen:
        found = reduce(logits)
    assert_close(found, whole, rtol=1e-6, atol=1e-6)
    # 16 MiB of float32 at most; the logits are 34 MiB
    assert 126_464 <= seen.elements <= 2**22


@pytest.mark.parametrize("cut", [slice(None), slice(1, 4)])
def test_leading_dimensions_and_slices_are_reduced_alike(cut):
    logits = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(2))[:, :, cut]
    x0 = torch.full(logits.shape[:-1], 5)
    rows, ids = logits.reshape(-1, 7), x0.reshape(-1)
    assert torch.equal(token_entropy(logits).reshape(-1), token_entropy(rows))
    assert torch.equal(token_nll(logits, x0).reshape(-1), token_nll(rows, ids))
    assert torch.equal(token_entropy(rows[0]), token_entropy(rows)[0])
    assert torch.equal(token_nll(rows[0], ids[0]), token_nll(rows, ids)[0])


DOUBLE = torch.float64


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32, DOUBLE])
def test_precision_of_what_comes_back_and_no_gradient(given):
    logits = LOGITS.to(given).requires_grad_()
    for kind in get_args(RateKind):
        rates = token_rates(kind, logits, X0, ANSWER)
        assert rates.dtype == (DOUBLE if given == DOUBLE else torch.float32)
        assert not rates.requires_grad


def test_excluded_tokens_leave_the_rest_their_entropy():
    # -inf on two of four: ln 2 whatever the vocabulary; the nll of an excluded token is inf
    logits = tensor([[0.0, -math.inf, 0.0, -math.inf]])
    assert token_entropy(logits).item() == pytest.approx(math.log(2))
    assert token_nll(logits, tensor([2])).item() == pytest.approx(math.log(2))
    assert token_nll(logits, tensor([1])).item() == math.inf


@pytest.mark.parametrize("kind", ["sqrt_entropy", "entropy", "nll"])
@pytest.mark.parametrize("bad", [[math.nan, 0], [0, math.nan], [0, math.inf], [-math.inf] * 2])
def test_logits_that_are_no_distribution_name_their_row(kind, bad):
    logits = LOGITS.repeat(3, 1, 1)
    logits[2, 1] = tensor(bad)
    x0, answer = X0.expand(3, 3), ANSWER.expand(3, 3)
    with pytest.raises(ValueError, match=r"^logits\[2, 1\]: NaN or \+inf"):
        token_rates(kind, logits, x0, answer)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
def test_an_unusable_rate_names_its_row_unless_it_is_outside_the_answer(bad):
    beta, answer = torch.ones(2, 3), ANSWER.expand(2, 3)
    beta[1, 2] = bad
    with pytest.raises(ValueError, match=r"^beta\[1, 2\]: a rate must be finite and >= 0"):
        usable_rates(beta, answer)
    beta[1, 2], beta[1, 0] = 3.0, bad
    assert usable_rates(beta, answer).tolist() == [[0, 1, 1], [0, 1, 3]]


# sums of a few stay finite in float32, whose largest is 2^128
EXTREME = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([-math.inf, 0.0, 1e-45])


@given(
    logits=arrays(np.float32, (1, 4, 3), elements=EXTREME),
    kind=st.sampled_from(get_args(RateKind)),
    t=st.floats(TIME_MARGIN, 1 - TIME_MARGIN),
)
def test_any_prediction_gives_probabilities_above_zero(logits, kind, t):
    """Every distribution: what the loss divides by is not too small."""
    logits, time = torch.from_numpy(logits), tensor([[t]])
    logits[..., 0] = logits[..., 0].clamp(min=-(2.0**100))  # token 0 is possible: a distribution
    x0, answer = torch.zeros(1, 4, dtype=torch.long), tensor([[False, True, True, True]])
    beta = usable_rates(token_rates(kind, logits, x0, answer), answer)
    beta_ref = mean_rate(beta, answer)
    probability = mask_probability(time, beta, beta_ref)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (1 / probability[answer]).isfinite().all()
