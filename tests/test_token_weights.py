"""Token weights and selections, against sums worked by hand and their naive twins."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.losses import denoising_loss
from weft_rl.diffusion.rates import token_nll
from weft_rl.diffusion.token_weights import dream_weights, excess_loss_selection, own_probability


def test_dream_by_hand():
    masked = tensor([[False, True, True, False, True]])
    everything = torch.ones_like(masked)
    # Geo(.3, k): k=0 .3, k=1 .21, k=2 .147, k=3 .1029; unmasked are 0 and 3
    # i=1: j=0 at 1 -> .3,    j=3 at 2 -> .21   (.3 + .21) / 2    = .255
    # i=2: j=0 at 2 -> .21,   j=3 at 1 -> .3    (.21 + .3) / 2    = .255
    # i=4: j=0 at 4 -> .1029, j=3 at 1 -> .3    (.1029 + .3) / 2  = .20145
    assert_close(dream_weights(masked, everything), tensor([[0, 0.255, 0.255, 0, 0.20145]]))


def test_dream_by_hand_in_the_loss():
    """Eq. 15 with Eq. 17: masked uniformly at t = 1/2, weight w / t."""
    masked = tensor([[False, True, True]])
    logits = torch.zeros(1, 3, 2)  # ln 2 each
    everything, x0 = torch.ones_like(masked), torch.zeros(1, 3, dtype=torch.long)
    half = torch.full((1, 3), 0.5)
    weight = dream_weights(masked, everything, p=0.5)
    # token 1: Geo(.5, 0) / 2 = 1/4; token 2: Geo(.5, 1) / 2 = 1/8
    found = denoising_loss(logits, x0, masked, half, masked, weight, "none")
    # (1/4 + 1/8) / (1/2) * ln 2
    assert_close(found, tensor(0.75 * math.log(2)))


def test_dream_equals_the_double_loop_and_ignores_padding():
    generator = torch.Generator().manual_seed(3)
    masked = torch.rand(4, 9, generator=generator) < 0.5
    visible = torch.ones(4, 9, dtype=torch.bool)
    visible[1, 7:], visible[2, :3] = False, False
    masked &= visible
    for p in (0.3, 0.9, 1.0):
        found = dream_weights(masked, visible, p)
        for b in range(4):
            for i in range(9):
                known = [j for j in range(9) if visible[b, j] and not masked[b, j]]
                naive = sum(p * (1 - p) ** (abs(j - i) - 1) for j in known if j != i) / 2
                assert found[b, i].item() == pytest.approx(naive * masked[b, i].item(), abs=1e-6)
        alone = dream_weights(masked[1:2, :7], visible[1:2, :7], p)
        assert_close(found[1:2, :7], alone)


def test_own_probability_by_hand_and_without_gradient():
    nll = tensor([[math.log(4 / 3), math.log(4)]], requires_grad=True)
    weight = own_probability(nll)
    assert_close(weight, tensor([[0.75, 0.25]]))
    assert not weight.requires_grad


def test_the_gradient_of_dft_is_that_of_minus_the_probability():
    """d(sg(p) * -log p) = -dp, by automatic differentiation of both."""
    logits = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    x0, full = tensor([[0, 4, 2, 2]]), torch.ones(1, 4, dtype=torch.bool)
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ones, weight = torch.ones(1, 4).double(), own_probability(token_nll(ours, x0))
    denoising_loss(ours, x0, full, ones, full, weight, "none").backward()
    (-plain.softmax(-1).gather(-1, x0[..., None])).sum().backward()
    assert_close(ours.grad, plain.grad, rtol=1e-12, atol=1e-12)


def test_selection_by_hand():
    nll = tensor([[3.0, 1.0, 9.0, 2.0, 5.0]])
    reference = tensor([[1.0, 0.0, 0.0, 3.0, 1.0]])
    candidates = tensor([[True, True, False, True, True]])
    # excess 2, 1, (9), -1, 4; half of four candidates: tokens 4 and 0
    found = excess_loss_selection(nll, reference, candidates, 0.5)
    assert found.tolist() == [[True, False, False, False, True]]


@pytest.mark.parametrize(
    ("share", "kept"), [(0.01, 1), (0.1, 1), (0.29, 3), (0.3, 3), (0.56, 6), (1.0, 10)]
)
def test_how_many_are_kept_lowest_index_first_among_equals(share, kept):
    nll, every = torch.ones(1, 10), torch.ones(1, 10, dtype=torch.bool)
    found = excess_loss_selection(nll, torch.zeros(1, 10), every, share)
    assert found.tolist() == [[True] * kept + [False] * (10 - kept)]


def test_selection_is_within_each_sequence_and_empty_without_candidates():
    nll = tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0], [1.0, 1.0, 1.0, 1.0]])
    candidates = tensor([[True] * 4, [True, True, False, False], [False] * 4])
    found = excess_loss_selection(nll, torch.zeros(3, 4), candidates, 0.5)
    # two of four, one of two, none of none
    assert found.tolist() == [[False, False, True, True], [False, True, False, False], [False] * 4]


def test_only_candidates_need_an_excess():
    nll, reference = tensor([[1.0, math.inf], [2.0, math.nan]]), torch.zeros(2, 2)
    first = tensor([[True, False], [True, False]])
    assert excess_loss_selection(nll, reference, first, 1.0).tolist() == first.tolist()
    with pytest.raises(ValueError, match=r"^nll\[1, 1\]: its excess must be finite"):
        excess_loss_selection(nll, reference, tensor([[True, False], [True, True]]), 1.0)


def test_wrong_arguments_are_named():
    masked = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"visible must have shape \(2, 3\)"):
        dream_weights(masked, masked[0])
    with pytest.raises(ValueError, match=r"p=0\.0"):
        dream_weights(masked, masked, p=0.0)
    for share in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="share="):
            excess_loss_selection(torch.zeros(2, 3), torch.zeros(2, 3), masked, share)
