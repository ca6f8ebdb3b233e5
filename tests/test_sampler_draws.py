"""Stateless draws, and tokens from cumulative probabilities, by enumeration and frequencies."""

import numpy as np
import pytest
import torch
from torch import tensor

from weft_rl.sampler.rng import stream_keys, uniform
from weft_rl.sampler.token_sampling import draw_tokens, sample_candidates


def grid(seeds=range(20), steps=30, positions=40, purpose="token"):
    """Draws of every seed, step and position."""
    keys = stream_keys(list(seeds), purpose)
    step, position = np.arange(steps), np.arange(positions)
    return uniform(keys[:, None, None], step[:, None], position)


def test_a_draw_is_a_function_of_its_place():
    whole = grid()
    assert whole.shape == (20, 30, 40)
    keys = stream_keys([7, 3], "token")
    # of other company, another order, another shape
    some = uniform(keys, np.array([29, 0]), np.array([5, 39]))
    assert some.tolist() == [whole[7, 29, 5], whole[3, 0, 39]]
    # and of nothing else
    both = np.concatenate([whole.ravel(), grid(purpose="position").ravel(), grid([-1]).ravel()])
    assert len(np.unique(both)) == len(both)
    # more than 32 bits of a seed count
    assert stream_keys([1], "token") != stream_keys([2**32 + 1], "token")


def test_draws_are_uniform_and_uncorrelated():
    draws = grid(steps=200)  # 20 x 200 x 40
    assert draws.dtype == np.float64
    assert 0 <= draws.min() < 1e-4 < 1 - 1e-4 < draws.max() < 1
    counts, _ = np.histogram(draws, bins=64, range=(0, 1))
    expected = draws.size / 64
    # what 63 degrees of freedom exceed once in a thousand
    assert ((counts - expected) ** 2 / expected).sum() < 103.4
    for axis in range(3):
        before, after = draws.take(range(19), axis), draws.take(range(1, 20), axis)
        # four standard errors
        assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 4 / before.size**0.5
    # bits below float32's 24 are used
    assert (draws * 2**24 % 1 > 0).mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 255, 256, 257, 700])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_evenly_spaced_draws_give_the_softmax(size, temperature):
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(size, generator=generator)
    logits[1] = -torch.inf
    n = 20_000
    draws = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    found = draw_tokens(logits.expand(n, -1), draws, temperature).bincount(minlength=size)
    expected = (logits.double() / temperature).softmax(dim=0) * n
    # an interval of length p holds p n of the points, give or take one
    assert (found - expected).abs().max() < 1.01
    assert found[1] == 0


def test_both_ends_of_a_draw_are_possible_tokens():
    # impossible tokens first and last, and a whole chunk of them
    logits = torch.full((3, 600), -torch.inf)
    logits[:, [300, 301]] = tensor([0.0, 1.0])
    draws = tensor([0.0, 1 - 2.0**-53, 0.2], dtype=torch.float64)
    assert draw_tokens(logits, draws, 1.0).tolist() == [300, 301, 300]  # 1 / (1 + e) = 0.27


def test_a_rare_token_beyond_the_reach_of_float32():
    # p = e^-20 = 2e-9, below 2^-24: float32 draws reach it 0 or 2^-24 of the time
    logits = tensor([[0.0, -20.0]])
    p = np.exp(-20.0) / (1 + np.exp(-20.0))
    for draw, token in [(1 - 1.001 * p, 0), (1 - 0.999 * p, 1)]:
        assert draw_tokens(logits, tensor([draw], dtype=torch.float64), 1.0).item() == token


def test_cold_draws_are_the_argmax():
    logits = tensor([[1e4, 1e4 - 1, -1e4], [-5.0, 3.0, 2.999]])
    for temperature in (1e-5, 1e-300):
        for draw in (0.0, 0.999):
            draws = torch.full((2,), draw, dtype=torch.float64)
            assert draw_tokens(logits, draws, temperature).tolist() == [0, 1]


@pytest.mark.parametrize("draws", [None, tensor([0.3], dtype=torch.float64)])
@pytest.mark.parametrize("place", [0, 299])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_logits_have_no_confidence(draws, place, value):
    logits = torch.zeros(1, 300)
    logits[0, place] = value
    assert sample_candidates(logits, draws, 1.0, [5])[1].view(torch.float32).isnan().all()


def test_confidence_counts_forbidden_tokens():
    logits = tensor([[3.0, 1.0, 2.0]])
    token, bits = sample_candidates(logits.clone(), None, 0.0, [0])
    # e^2 / (e^3 + e^1 + e^2)
    assert token.item() == 2
    assert bits.view(torch.float32).item() == pytest.approx(0.24473, abs=1e-5)
