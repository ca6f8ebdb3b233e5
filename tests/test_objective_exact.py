"""The expected loss over all masks and times, by enumeration, against forms without either.

A model of L tokens is a table: for each set of masked tokens, logits of each token. Token i is
masked before time t with probability 1 - (1 - t)^r_i, r_i = beta_i / beta_ref, so its masking time
is an exponential clock of rate r_i run through t = 1 - exp(-clock), and the order in which tokens
are masked is Plackett-Luce with weights r."""

import math
from itertools import combinations, permutations, product

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from weft_rl.diffusion.exact_elbo import elbo_weights, survival_mask_probability
from weft_rl.diffusion.losses import denoising_loss
from weft_rl.diffusion.noise import mask_probability
from weft_rl.diffusion.rates import mean_rate

SIZES = [(3, 3), (2, 4), (4, 2)]  # V, L
# ratios are multiples of 1/4: with 1 - t = u^4 every integrand is a polynomial in u, of degree at
# most 4 L + 3, since the ratios' sum is L; Gauss-Legendre with 12 nodes is exact up to 23
UNIT, NODES = 4, 12


def assert_same(found, wanted):
    """Equal to 1e-9."""
    assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def quadrature():
    """Times (N,) and weights (N,): the integral over t in [0, 1] of what the note above names."""
    k = torch.arange(1, NODES, dtype=torch.float64)
    off = k / torch.sqrt(4 * k * k - 1)
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    u = (values + 1) / 2
    return 1 - u**UNIT, vectors[0] ** 2 * UNIT * u ** (UNIT - 1)


def subsets(length):
    return list(product([False, True], repeat=length))


def random_rates(length, seed):
    """(1, L) rates in a random unit whose ratios to their mean are multiples of 1/UNIT."""
    generator = torch.Generator().manual_seed(seed)
    quarters = torch.ones(length, dtype=torch.float64)
    for _ in range((UNIT - 1) * length):
        quarters[torch.randint(length, (1,), generator=generator)] += 1
    return quarters[None] * torch.rand(1, generator=generator, dtype=torch.float64)


def any_model(size, seed):
    """(2^L, L, V) logits that are nobody's conditionals, and a sequence (L,)."""
    vocab, length = size
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(2**length, length, vocab, generator=generator, dtype=torch.float64)
    return 2 * table, torch.randint(vocab, (length,), generator=generator)


def consistent_model(size, seed):
    """The conditionals of a random joint distribution, a sequence and its -log p."""
    vocab, length = size
    generator = torch.Generator().manual_seed(seed)
    joint = torch.rand((vocab,) * length, generator=generator, dtype=torch.float64) ** 3
    joint /= joint.sum()
    x0 = torch.randint(vocab, (length,), generator=generator)
    table = torch.zeros(2**length, length, vocab, dtype=torch.float64)
    for row, masked in zip(table, subsets(length), strict=True):
        given = joint[tuple(slice(None) if m else int(x) for m, x in zip(masked, x0, strict=True))]
        places = [i for i, m in enumerate(masked) if m]
        for axis, i in enumerate(places):
            others = tuple(a for a in range(len(places)) if a != axis)
            row[i] = (given.sum(others) if others else given).log()
    return table, x0, -joint[tuple(x0)].log()


def slope(t, ratio):
    """d/dt of 1 - (1 - t)^r."""
    return ratio * (1 - t) ** (ratio - 1)


def expected_loss(table, x0, beta, method, normalizer="none"):
    """The code under test, over all 2^L masks and the nodes of t.

    method: plain or slope, for a uniform t; clock, for one token's clock with its weights."""
    masks = tensor(subsets(len(x0)))
    answer, ids = torch.ones_like(masks), x0.expand(len(masks), -1)
    beta = beta.expand(len(masks), -1)
    beta_ref = mean_rate(beta, answer)
    total = torch.zeros((), dtype=torch.float64)
    for t, weight in zip(*quadrature(), strict=True):
        time, density = t.expand(len(masks), 1), 1.0
        probability, factor = mask_probability(time, beta, beta_ref), torch.ones_like(beta)
        if method == "slope":
            factor = slope(time, beta / beta_ref)
        elif method == "clock":
            clock = -torch.log1p(-time)
            probability = survival_mask_probability(clock, beta, beta_ref)
            factor = elbo_weights(clock, beta, beta_ref, answer)
            # each token with the same chance, its t_i uniform
            density = slope(time, beta / beta_ref)[0].mean()
        chance = torch.where(masks, probability, 1 - probability).prod(-1)
        rows = zip(table, ids, masks, probability, answer, factor, strict=True)
        losses = [denoising_loss(*(part[None] for part in row), normalizer) for row in rows]
        total = total + weight * density * (chance * torch.stack(losses)).sum()
    return total


def surprise(table, x0, masked, i):
    """-log p(x0_i) when `masked` (a set of places) is masked."""
    row = subsets(len(x0)).index(tuple(k in masked for k in range(len(x0))))
    return -table[row, i].log_softmax(-1)[x0[i]]


def negative_elbo(table, x0, beta):
    """Mean over orders of masking of the surprises, each token masked with those before it."""
    total = torch.zeros((), dtype=torch.float64)
    for order in permutations(range(len(x0))):
        chance, surprises = 1.0, 0.0
        for k, i in enumerate(order):
            chance = chance * beta[0, i] / beta[0, list(order[k:])].sum()
            surprises = surprises + surprise(table, x0, set(order[: k + 1]), i)
        total = total + chance * surprises
    return total


def closed_form_without_slope(table, x0, beta):
    """Sum over i and masked sets M with i of the integral of prod_{M - i} t_j prod_{rest} (1 - t_j)
    times the surprise: with 1 - t_j = s^r_j, multiplied out, int s^a ds = 1 / (1 + a)."""
    places, ratio = range(len(x0)), beta[0] / beta.mean()
    total = torch.zeros((), dtype=torch.float64)
    for masked in (set(m) for n in range(1, len(x0) + 1) for m in combinations(places, n)):
        for i in masked:
            rest, visible = masked - {i}, [j for j in places if j not in masked]
            integral = 0.0
            for n in range(len(rest) + 1):
                for chosen in combinations(rest, n):
                    integral += (-1) ** n / (1 + ratio[[*chosen, *visible]].sum())
            total = total + integral * surprise(table, x0, masked, i)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("slope", negative_elbo),
        # by one token's clock it is the same
        ("clock", negative_elbo),
        ("plain", closed_form_without_slope),
    ],
)
def test_the_expected_loss_of_any_model_is_a_form_without_masks_or_times(size, seed, method, form):
    (table, x0), beta = any_model(size, seed), random_rates(size[1], seed)
    assert_same(expected_loss(table, x0, beta, method), form(table, x0, beta))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(8))
def test_with_slope_it_is_the_likelihood_of_a_consistent_model(size, seed):
    (table, x0, nll), beta = consistent_model(size, seed), random_rates(size[1], seed)
    assert_same(expected_loss(table, x0, beta, "slope"), nll)


def test_without_slope_it_is_not_the_likelihood():
    table, x0, nll = consistent_model((3, 3), 1)
    # ratios 3/12, 3/12, 30/12 of a mean of 12: far from equal
    beta = tensor([[3.0, 3.0, 30.0]], dtype=torch.float64)
    assert abs(closed_form_without_slope(table, x0, beta) - nll) > 0.1


@pytest.mark.parametrize("normalizer", ["answer", "masked"])
def test_a_record_is_divided_by_a_fixed_number_or_its_rates_come_back(normalizer):
    """What a nat of each token counts, one token at a time having one whatever is masked."""
    beta, counts = tensor([[1.0, 1.0, 10.0]], dtype=torch.float64), []
    for i in range(3):
        table = torch.full((8, 3, 2), -60.0, dtype=torch.float64)
        table[..., 0] = 0
        table[:, i] = tensor([1.0, math.e - 1]).log()  # p = 1 / e
        x0 = torch.zeros(3, dtype=torch.long)
        counts.append(float(expected_loss(table, x0, beta, "clock", normalizer)))
    if normalizer == "answer":
        assert counts == pytest.approx([1 / 3] * 3, abs=1e-9)
    else:
        assert counts[2] > 1.3 * counts[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["plain", "slope", "clock"])
def test_equal_rates_are_sft_whose_bound_needs_no_slope(size, method):
    table, x0, nll = consistent_model(size, 0)
    assert_same(expected_loss(table, x0, torch.full((1, size[1]), 0.3).double(), method), nll)


@pytest.mark.parametrize("method", ["plain", "slope", "clock"])
@pytest.mark.parametrize("seed", range(3))
def test_its_gradient_is_that_of_the_form_without_masks(method, seed):
    (table, x0), beta = any_model((3, 3), seed), random_rates(3, seed)
    table.requires_grad_()
    form = closed_form_without_slope if method == "plain" else negative_elbo
    (found,) = torch.autograd.grad(expected_loss(table, x0, beta, method), table)
    (wanted,) = torch.autograd.grad(form(table, x0, beta), table)
    assert wanted.abs().max() > 0.1
    assert_same(found, wanted)
