"""Estimators of a completion's log-probability against enumeration on a tiny vocabulary."""

from itertools import product
from math import comb

import pytest
import torch
from torch.testing import assert_close
from toy_denoiser import MASK, table, view_log_probs

from weft_rl.diffusion.logprob_estimators import (
    NEVER,
    MaskedViews,
    coupled,
    elbo,
    gauss_legendre,
    one_step,
    random_mask,
    token_estimate,
    trace,
)


def generators(count, first=0):
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def exact_elbo(model, tokens):
    """Mean over the number l of hidden tokens and over which ones, of T / l * sum of log p."""
    length, total = len(tokens), 0.0
    for hidden in product([False, True], repeat=length):
        count = sum(hidden)
        if count:
            canvas = tuple(MASK if h else t for h, t in zip(hidden, tokens, strict=True))
            log_p = sum(float(model[canvas][i, tokens[i]]) for i in range(length) if hidden[i])
            total += log_p / count / comb(length, count)
    return total


def estimates(model, tokens, views):
    """Of each row, by a table over masks."""
    bits = 2 ** torch.arange(len(tokens))
    masks = (torch.arange(2 ** len(tokens))[:, None] // bits % 2).bool()[:, None]
    by_mask = view_log_probs(model, tokens, MaskedViews(masks, masks.float()))[:, 0]
    log_p = by_mask[(views.masked * bits).sum(-1)]
    return token_estimate(log_p, views.weight.double()).sum(-1)


def test_everything_hidden_at_once():
    answer = torch.tensor([[True, True, False], [True, True, True]])
    views = one_step(answer)
    assert views.masked.all()
    assert_close(views.weight[:, 0], answer.float())
    assert torch.equal(views.loss_mask, answer)
    # an answer of one token needs one draw
    views = elbo(torch.tensor([[True, False, False]]), generators(1), 1)
    assert views.masked.all()
    assert_close(views.weight, torch.tensor([[[1.0, 0.0, 0.0]]]))


def test_coupled_masks_partition_the_answer():
    answer = torch.tensor([[True] * 5 + [False] * 3]).repeat(50, 1)
    views = coupled(answer, generators(50))
    assert views.masked[:, 0].all()
    assert (views.masked[:, 1, :5] ^ views.masked[:, 2, :5]).all()
    assert views.masked[:, :, 5:].all()  # after the end
    # 1/2 with all hidden, 1 / (2 ratio) in the view that hides it; 1/ratio + 1/(1 - ratio)
    part = views.weight[:, 1:]
    assert (views.weight[:, 0, :5] == 0.5).all()
    largest = part.amax(-1)  # (N, 2); 0 in a view that happens to hide nothing
    ratio = 0.5 / largest
    shown = ratio[largest > 0]
    assert ((shown > 0.19) & (shown < 0.81)).all()
    # spread over the range
    assert shown.min() < 0.3
    assert shown.max() > 0.7
    both = (largest > 0).all(-1)
    assert_close(ratio[both].sum(-1), torch.ones(int(both.sum())))


def test_random_masks_weigh_each_hidden_token_once():
    answer = torch.tensor([[True] * 6 + [False] * 2]).repeat(40, 1)
    views = random_mask(answer, generators(40), 3)
    assert_close(views.weight.sum(1), views.loss_mask.float())
    assert not views.loss_mask.all()
    assert not views.loss_mask[:, 6:].any()
    assert torch.equal(views.weight > 0, views.masked & answer[:, None])


@pytest.mark.slow
@pytest.mark.parametrize("complement", [False, True])
@pytest.mark.parametrize(("times", "draws"), [("random", 2), ("quadrature", 2)])
def test_the_bound_is_unbiased(times, draws, complement):
    # 2 nodes integrate polynomials of degree 3 exactly; with 3 tokens the integrand has degree 2
    model, tokens = table(3), (0, 2, 1)
    count = 60000
    answer = torch.ones(count, 3, dtype=torch.bool)
    one = torch.Generator().manual_seed(0)
    views = elbo(answer, [one] * count, draws, times=times, complement=complement)
    found = estimates(model, tokens, views)
    error = found.std() / count**0.5
    assert abs(found.mean() - exact_elbo(model, tokens)) < 4 * error
    assert error < 0.02  # the test can see a bias of a few hundredths


def test_a_complement_hides_what_its_draw_shows():
    answer = torch.ones(200, 3, dtype=torch.bool)
    views = elbo(answer, generators(200), 1, complement=True)
    assert torch.equal(views.masked[:, 0], ~views.masked[:, 1])
    hidden = views.masked[:, 0].sum(-1)
    assert set(hidden.tolist()) == {0, 1, 2, 3}
    # (L + 1) / k / 2 for each of the k hidden tokens; 0 of them add nothing
    for k, weight in ((0, 0.0), (1, 2.0), (2, 1.0), (3, 2 / 3)):
        assert_close(views.weight[hidden == k, 0].amax(-1).mean(), torch.tensor(weight))


def test_enumerating_masks_at_the_nodes_is_the_exact_bound():
    """No chance left: every mask with its probability at each node."""
    model, tokens = table(4), (1, 1, 0, 2)
    nodes, weights = gauss_legendre(2)  # degree 3: exact for 4 tokens
    total = 0.0
    for t, w in zip(nodes.double(), weights.double(), strict=True):
        for hidden in product([False, True], repeat=4):
            canvas = tuple(MASK if h else x for h, x in zip(hidden, tokens, strict=True))
            log_p = sum(float(model[canvas][i, tokens[i]]) for i in range(4) if hidden[i])
            total += w * t ** sum(hidden) * (1 - t) ** (4 - sum(hidden)) * log_p / t
    assert float(total) == pytest.approx(exact_elbo(model, tokens), abs=1e-6)


def test_nodes_by_hand():
    # on (-1, 1) the two nodes are +-1/sqrt(3) with weight 1; the middle node of three weighs 8/9
    nodes, weights = gauss_legendre(2)
    assert_close(nodes, torch.tensor([0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5]))
    assert_close(weights, torch.tensor([0.5, 0.5]))
    nodes, weights = gauss_legendre(3)
    assert_close(weights, torch.tensor([5 / 18, 8 / 18, 5 / 18]))
    assert_close(gauss_legendre(1)[0], torch.tensor([0.5]))


@pytest.mark.slow
def test_block_by_block_the_bound_is_the_sum_of_the_blocks_bounds():
    model, tokens = table(3, seed=4), (2, 0, 1)
    # blocks of 2: tokens 0, 1 with token 2 hidden; then token 2 with 0, 1 shown
    half = 0.5  # over l = 1, 2: 1/l * mean over masks
    first = (
        half * float(model[MASK, tokens[1], MASK][0, tokens[0]])
        + half * float(model[tokens[0], MASK, MASK][1, tokens[1]])
        + half * float(model[MASK, MASK, MASK][0, tokens[0]])
        + half * float(model[MASK, MASK, MASK][1, tokens[1]])
    )
    wanted = first + float(model[tokens[0], tokens[1], MASK][2, tokens[2]])
    count = 60000
    answer = torch.ones(count, 3, dtype=torch.bool)
    one = torch.Generator().manual_seed(2)
    for times in ("random", "quadrature"):
        views = elbo(answer, [one] * count, 3, times=times, block_length=2)
        found = estimates(model, tokens, views)
        error = float(found.std()) / count**0.5
        assert abs(float(found.mean()) - wanted) < 4 * error
        # before a looked-at block all is shown, after it nothing
        second = views.weight[..., 2] > 0
        assert not views.masked[second][:, :2].any()


def test_a_trace_with_a_slice_per_step_is_the_samplers_own_probability():
    model, tokens = table(3), (0, 1, 2)
    # token 2 first, then 0 and 1 together
    order = torch.tensor([[1, 1, 0]])
    answer = torch.ones(1, 3, dtype=torch.bool)
    found = estimates(model, tokens, trace(answer, order, 2))
    wanted = model[MASK, MASK, MASK][2, 2] + model[MASK, MASK, 2][0, 0] + model[MASK, MASK, 2][1, 1]
    assert_close(found[0], wanted)


def test_slices_partition_the_trace():
    order = torch.tensor([[0, 3, 1, 4, 2, NEVER]])
    answer = torch.tensor([[True, True, True, True, False, False]])
    views = trace(answer, order, 2)  # steps 0 and 1, then 2 to 4
    assert_close(views.weight.sum(1), answer.float())
    assert torch.equal(views.masked[0, 0], torch.ones(6, dtype=torch.bool))
    # token 4 lies after the end, but the sampler committed it in the second slice
    assert views.masked[0, 1].tolist() == [False, True, False, True, True, True]


@pytest.mark.parametrize(("steps", "slices"), [(16, 12), (16, 10), (6, 4), (16, 16), (16, 5)])
def test_there_are_as_many_slices_as_asked_for(steps, slices):
    order = torch.arange(2 * steps)[None] // 2  # two tokens a step
    views = trace(torch.ones_like(order, dtype=torch.bool), order, slices)
    assert views.weight.any(-1).tolist() == [[True] * slices]
    assert_close(views.weight.sum(1), torch.ones(1, 2 * steps))


def test_a_row_is_cut_by_the_steps_that_it_took():
    # a row of six steps, and one that knew everything after two
    order = torch.tensor([[5, 4, 3, 2, 1, 0], [1, 1, 0, 0, 1, 0]])
    answer = torch.ones_like(order, dtype=torch.bool)
    views, alone = trace(answer, order, 3), trace(answer[1:], order[1:], 3)
    assert [views.masked.shape[1], alone.masked.shape[1]] == [3, 2]
    assert_close(views.weight.sum(1), answer.float())
    # the second's first slice is empty, and its view is that of the next one: no forward of its own
    assert torch.equal(views.masked[1], alone.masked[0][[0, 0, 1]])
    assert torch.equal(views.weight[1, 1:], alone.weight[0])
    assert torch.equal(alone.masked[0], torch.stack([order[1] >= 0, order[1] >= 1]))


def test_answers_with_gaps_or_tokens_without_a_step_are_refused():
    for answer in ([[False, True]], [[False, False]]):
        with pytest.raises(ValueError, match="prefix"):
            elbo(torch.tensor(answer), generators(1), 1)
    with pytest.raises(ValueError, match=r"unmask_step\[1, 2\]"):
        trace(torch.ones(2, 3, dtype=torch.bool), torch.tensor([[0, 1, 2], [0, 1, NEVER]]), 3)


@pytest.mark.parametrize("kind", [coupled, lambda a, g: random_mask(a, g, 2)])
def test_a_rows_views_do_not_depend_on_its_neighbours(kind):
    answer = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    both, alone = kind(answer, generators(2)), kind(answer[1:], generators(1, first=1))
    assert torch.equal(both.masked[1:], alone.masked)
    assert torch.equal(both.weight[1:], alone.weight)
