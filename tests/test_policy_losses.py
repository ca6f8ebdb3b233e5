"""Losses, advantages and selections against numbers worked out by hand."""

from dataclasses import replace
from math import exp, log

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from weft_rl.config.rl import LossConfig
from weft_rl.diffusion.advantages import equal_groups, group_advantages, wd1_weights
from weft_rl.diffusion.logprob_estimators import MaskedViews, elbo, token_estimate
from weft_rl.diffusion.policy_losses import (
    aggregate,
    eubo,
    kl_k2_sequence,
    kl_k3,
    ppo_clip_loss,
    reinforce_loss,
    sequence_ratio,
    spg_loss,
)
from weft_rl.diffusion.token_selection import covariances, top_threshold
from weft_rl.trainers.rl_objectives import LossInputs, token_loss


def test_clip():
    # A > 0: min(2, 1.5) = 1.5; A < 0: min(-2, -1.5) = -2; 0.4 < 0.5 holds back only for A < 0
    ratio = tensor([[2.0, 0.4, 1.1]]).repeat(2, 1).requires_grad_()
    loss, held = ppo_clip_loss(ratio, tensor([1.0, -1.0]), 0.5)
    assert_close(loss.detach(), tensor([[-1.5, -0.4, -1.1], [2.0, 0.5, 1.1]]))
    assert held.tolist() == [[True, False, False], [False, True, False]]
    loss.sum().backward()
    assert torch.equal(ratio.grad == 0, held)


def test_ratio_of_a_completion():
    new, old = tensor([[1.0, 2.0, 9.0]]), tensor([[0.5, 1.9, 0.0]])
    # (0.5 + 0.1) / 2 = 0.3; the third token has no estimate
    found = sequence_ratio(new, old, tensor([[True, True, False]]))
    assert_close(found, tensor([[exp(0.3)]]))


def test_wd1_by_hand():
    # advantages ln 2 and 0: softmax 2/3, 1/3; of the opposites 1/3, 2/3
    weights = wd1_weights(tensor([log(2.0), 0.0, 5.0, 5.0]), 2)
    assert_close(weights, tensor([1 / 3, -1 / 3, 0.0, 0.0]))
    # temperature 0.5 doubles the advantages
    a = tensor([1.0, 0.0, -1.0, 0.5])
    assert_close(wd1_weights(a, 2, 0.5), wd1_weights(2 * a, 2))
    # -1/3 (-1 - 2) + 1/3 (-3) = 1 - 1 = 0 over the two completions of a prompt
    log_p = tensor([[-1.0, -2.0], [-3.0, 0.0]])
    loss = reinforce_loss(log_p, weights[:2])
    assert_close(loss, tensor([[1 / 3, 2 / 3], [-1.0, 0.0]]))


def test_baselines():
    assert equal_groups(tensor([0.3, 0.3, 0.3, 0.4]), 2).tolist() == [True, False]
    with pytest.raises(ValueError, match="groups of 4"):
        group_advantages(torch.ones(6), 4)
    rewards = tensor([1.0, 0.0, 0.0, 0.0])
    assert_close(group_advantages(rewards, 4), tensor([0.75, -0.25, -0.25, -0.25]))
    # less the mean of the others: 1 - 0; 0 - 1/3. Standard deviation 0.5
    for kind, wanted in (("leave_one_out", [1, -1 / 3]), ("z_score", [1.5, -0.5])):
        wanted = tensor([wanted[0], *[wanted[1]] * 3])
        assert_close(group_advantages(rewards, 4, kind), wanted, atol=1e-3, rtol=0)


def test_upper_bound_by_hand():
    # one view: (1/b) ln(w p^b) = ln p + ln(w)/b; two: (1/2) ln(1/2 * .25 + 1 * .01); two of the
    # four tokens are masked, so that each counts 4/2
    log_p = tensor([[[0.5, 0.5, 0.3, 0.2], [0.3, 0.1, 0.9, 0.2]]]).log()
    weight = tensor([[[2.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]])
    found = eubo(log_p, weight, 2.0, torch.ones(1, 4, dtype=torch.bool))
    wanted = [log(0.5) + log(2) / 2, log(0.5 * 0.25 + 0.01) / 2, 0.0, 0.0]
    assert_close(found, 2 * tensor([wanted]))


@pytest.mark.parametrize("masked", [1, 3, 8])
def test_upper_bound_of_equal_tokens(masked):
    """K of L = 8 tokens at p, weight L/K: a mean of ln p + ln(L/K)/b, and all of its gradient."""
    log_p = torch.full((1, 1, 9), -2.0, requires_grad=True)
    weight = (torch.arange(9) < masked).float()[None, None] * 8 / masked
    scored = torch.arange(9)[None] < 8
    mean = (eubo(log_p, weight, 1.5, scored) * scored).sum() / 8
    assert_close(mean.detach(), tensor(-2 + log(8 / masked) / 1.5))
    mean.backward()
    assert_close(log_p.grad[0, 0], (torch.arange(9) < masked).float() / masked)


def test_upper_bound_lies_above_the_lower_one_and_meets_it():
    generator = torch.Generator().manual_seed(0)
    log_p = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    weight = torch.rand(4, 3, 5, generator=generator, dtype=torch.float64)
    weight = weight / weight.sum(1, keepdim=True)
    lower, scored = (weight * log_p).sum(1), torch.ones(4, 5, dtype=torch.bool)
    assert (eubo(log_p, weight, 1.5, scored) >= lower).all()
    assert_close(eubo(log_p, weight, 1e-7, scored), lower, atol=1e-5, rtol=0)


def test_unmasked_tokens_give_the_upper_bound_no_gradient():
    log_p = torch.full((2, 2, 2), -1.0, requires_grad=True)
    weight = tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    eubo(log_p, weight, 1.5, torch.ones(2, 2, dtype=torch.bool)).sum().backward()
    # a completion without a masked token has none
    assert_close(log_p.grad, tensor([[[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))


SPG_MASKS = ["11000000 00110000", "01100000 11000000", "10000000 11100000", "01000000 11100000"]


@pytest.mark.parametrize(
    ("exponent", "mixture", "wanted"),
    # the loss and each completion's norm of the gradient by logits, from compute_loss of SPG's
    # spg_trainer.py on these logits and masks (logp_estimation: mix, mix, eubo, elbo)
    [
        (1.5, 0.5, [-0.0886561, 0.1323884, 0.0243551, 0.1461696, 0.0114354]),
        (1.0, 0.5, [-0.0575593, 0.1323884, 0.0244513, 0.1456987, 0.0114354]),
        (2.0, 1.0, [-0.1026528, 0.1323884, 0.026381, 0.1611182, 0.0114354]),
        (1.5, 0.0, [-0.104693, 0.1323884, 0.0249126, 0.1457081, 0.0114354]),
    ],
)
def test_spg_equals_its_own_code(exponent, mixture, wanted):
    count, draws, length, vocabulary = 4, 2, 8, 5
    places = torch.arange(count * draws * length * vocabulary, dtype=torch.float32)
    logits = (2 * torch.sin(1.7 * places)).view(count, draws, length, vocabulary).requires_grad_()
    ids = torch.arange(count * length).view(count, length) * 3 % vocabulary
    lengths = tensor([8, 5, 8, 3])
    masked = tensor([[[int(each) for each in view] for view in row.split()] for row in SPG_MASKS])
    weight = masked * lengths[:, None, None] / masked.sum(-1, keepdim=True) / draws
    views = MaskedViews(masked.bool(), weight, torch.arange(length) < lengths[:, None])
    tokens = ids[:, None, :, None].expand(-1, draws, -1, 1)
    log_p = logits.log_softmax(-1).gather(-1, tokens)[..., 0]
    options = LossConfig(spg_exponent=exponent, spg_mixture=mixture)
    inputs = LossInputs(tensor([0.75, -0.25, -0.75, 0.25]))
    found = token_loss("spg", log_p, views, inputs, options, 0.0)
    sizes = {"tokens": found.loss_mask.sum(), "rows": count, "gen_length": length, "group": count}
    loss = aggregate(found.loss, found.loss_mask, "bnpo", **sizes)
    loss.backward()
    assert_close(tensor([loss.detach(), *logits.grad.flatten(1).norm(dim=1)]), tensor(wanted))


def test_sandwich():
    lower, upper = tensor([[-2.0], [-2.0]]), tensor([[-1.0], [-1.0]])
    # A > 0: lower bound; A <= 0: .25 * -1 + .75 * -2 = -1.75
    found = spg_loss(lower, upper, tensor([1.0, -2.0]), 0.25)
    assert_close(found, tensor([[2.0], [-3.5]]))


def test_kl():
    new, reference = tensor([[0.0, 1.0]]), tensor([[log(2.0), 1.0]])
    # d = ln 2: 2 - ln 2 - 1
    assert_close(kl_k3(new, reference), tensor([[1 - log(2.0), 0.0]]))
    # (ln 2)^2 / 2 / 2 tokens
    found = kl_k2_sequence(new, reference, tensor([[True, True]]))
    assert_close(found, tensor([[log(2.0) ** 2 / 4]]))


@pytest.mark.parametrize(
    ("normalizer", "wanted"),
    # scored: 1 + 2 | 3: bnpo (1 + 2 + 3) / 3; grpo (1.5 + 3) / 2; dr_grpo 6 / (2 * 4); one prompt
    [("bnpo", 2.0), ("dapo", 2.0), ("grpo", 2.25), ("dr_grpo", 0.75), ("group", 6.0)],
)
def test_normalizers(normalizer, wanted):
    loss = tensor([[1.0, 2.0, 7.0], [3.0, 7.0, 7.0]])
    scored = tensor([[True, True, False], [True, False, False]])
    common = {"tokens": tensor(3.0), "rows": 2, "gen_length": 4, "group": 2}
    assert_close(aggregate(loss, scored, normalizer, **common), tensor(wanted))
    parts = [aggregate(loss[i : i + 1], scored[i : i + 1], normalizer, **common) for i in (0, 1)]
    assert_close(parts[0] + parts[1], tensor(wanted))


def test_top_share():
    values = tensor([0.1, 0.9, 0.5, 0.7, 0.3])
    assert top_threshold(values, 0.4) == values[3]  # two of five
    assert top_threshold(values, 0.01) == values[1]  # at least one
    assert top_threshold(values, 1.0) == values[0]
    assert top_threshold(values[:0], 0.5) == torch.inf


def test_covariance_by_hand():
    # mean log p -2, mean A 0.5: (-1 + 2)(1 - .5), (-3 + 2)(1 - .5), (-2 + 2)(-.5)
    found = covariances(tensor([[-1.0, -3.0], [-2.0, -2.0]]), tensor([1.0, 0.0]), -2.0, 0.5)
    assert_close(found, tensor([[0.5, -0.5], [0.0, 0.0]]))


@pytest.mark.parametrize("chosen", [{}, {"block_length": 8}, {"times": "quadrature"}])
@pytest.mark.parametrize("draws", [1, 2])
def test_a_bounds_ratio_is_per_token_of_the_completion(chosen, draws):
    """Every token .02 nats more likely, whatever is hidden: the mean log ratio is .02, though a
    view hides but a part of the tokens. Divided by the hidden ones it would be .03 to .2."""
    answer = torch.ones(6000, 32, dtype=torch.bool)
    generators = [torch.Generator().manual_seed(i) for i in range(len(answer))]
    views = elbo(answer, generators, draws, **chosen)
    assert not (views.weight > 0).any(1).all()
    before = torch.full(views.weight.shape, -1.0)
    old = LossInputs(torch.ones(len(answer)), old=token_estimate(before, views.weight))
    options = LossConfig(clip_coef=1e9)
    found = token_loss("gspo", before + 0.02, views, old, options, 0.0)
    shift = (-found.loss[:, 0]).log()
    error = 4 * float(shift.std()) / len(shift) ** 0.5
    assert shift.mean() == pytest.approx(0.02, abs=1e-5 + error)
    # k2 over the length: half of (.02 length)^2 / length, plus the variance of the sum
    start = replace(old, reference=old.old)
    sequence = replace(options, kl_estimator="k2_sequence")
    kl = token_loss("gspo", before + 0.02, views, start, sequence, 1.0).kl
    assert torch.allclose(kl[:, 0], (32 * shift) ** 2 / 32 / 2, rtol=1e-3)
