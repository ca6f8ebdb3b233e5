"""Whether a trace's estimate is the sampler's own probability, over all that it can do.

Three places, three tokens, one place a step: a trajectory is a completion and the step of each of
its tokens. The naive sampler here says how probable each is; the real one must do the same."""

from collections import defaultdict
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from toy_denoiser import MASK, V, table, view_log_probs

from weft_rl.diffusion.logprob_estimators import token_estimate, trace
from weft_rl.sampler import SamplerConfig, generate

T, END = 3, 4


def choices(p, canvas, remasking):
    """What the sampler may commit next and how likely: {(place, token): probability}.

    Every open place has a candidate; the most probable one is committed, or one at random."""
    places = [i for i in range(T) if canvas[i] == MASK]
    found = defaultdict(float)
    for drawn in product(range(V), repeat=len(places)):
        each = [float(p[canvas][i, token]) for i, token in zip(places, drawn, strict=True)]
        chance = float(torch.tensor(each, dtype=torch.float64).prod())
        best = each.index(max(each))
        for k, (i, token) in enumerate(zip(places, drawn, strict=True)):
            if remasking == "random":
                found[i, token] += chance / len(places)
            elif k == best:
                found[i, token] += chance
    return found


def trajectories(model, remasking):
    """{(completion, order): probability}, of those that can happen."""
    p = {canvas: rows.exp() for canvas, rows in model.items()}
    reached = {((MASK,) * T, (-1,) * T): 1.0}
    for step in range(T):
        following = defaultdict(float)
        for (canvas, order), before in reached.items():
            for (i, token), chance in choices(p, canvas, remasking).items():
                filled = (*canvas[:i], token, *canvas[i + 1 :])
                following[filled, (*order[:i], step, *order[i + 1 :])] += before * chance
        reached = following
    return reached


def estimated(model, reached):
    """exp of the trace's estimate of each trajectory: (number of them,)."""
    answer = torch.ones(1, T, dtype=torch.bool)
    found = []
    for x, order in reached:
        views = trace(answer, torch.tensor([order]), T)
        found.append(token_estimate(view_log_probs(model, x, views), views.weight).sum())
    return torch.stack(found).exp()


@pytest.mark.parametrize("remasking", ["random", "low_confidence"])
def test_the_estimate_is_the_probability_under_random_remasking_only(remasking):
    model = table(T)
    reached = trajectories(model, remasking)
    found, wanted = estimated(model, reached), torch.tensor([*reached.values()]).double()
    assert_close(wanted.sum(), torch.tensor(1.0).double(), atol=1e-6, rtol=0)
    if remasking == "random":
        # each of the 3! orders is equally likely, whatever the model: a factor without a gradient
        assert_close(found / 6, wanted, atol=1e-7, rtol=1e-5)
        assert_close(found.sum(), torch.tensor(6.0).double(), atol=1e-9, rtol=0)
    else:
        # no common factor: a confident token is committed more often than it is drawn, and first
        ratio = wanted / found
        assert ratio.max() > 3 * ratio.min()


class Table(nn.Module):
    """The enumerated model as a network: the completion's logits hang on the completion alone."""

    def __init__(self, model):
        super().__init__()
        rows = torch.full(((V + 1) ** T, T, END + 1), -torch.inf)
        for index, canvas in enumerate(product(range(V + 1), repeat=T)):
            rows[index, :, :V] = model[canvas]
        self.register_buffer("rows", rows)
        self.config = SimpleNamespace(mask_token_id=MASK, eos_token_id=END)

    def forward(self, input_ids, attention_mask=None):
        index = (input_ids[:, -T:] * (V + 1) ** torch.arange(T - 1, -1, -1)).sum(-1)
        return SimpleNamespace(logits=nn.functional.pad(self.rows[index], (0, 0, 1, 0)))


@pytest.mark.slow
@pytest.mark.parametrize("remasking", ["random", "low_confidence"])
def test_the_sampler_does_what_was_enumerated(remasking):
    model, count = table(T), 20000
    reached = trajectories(model, remasking)
    config = SamplerConfig(T, T, T, temperature=1.0, remasking=remasking, trace=True)
    made = generate(Table(model), torch.zeros(count, 1, dtype=torch.long), config)
    seen_often = defaultdict(int)
    for x, entries in zip(made.completions.tolist(), made.trace, strict=True):
        steps = {entry["position"]: entry["step"] for entry in entries}
        seen_often[tuple(x), tuple(steps[i] for i in range(T))] += 1
    assert seen_often.keys() <= reached.keys()
    # Pearson's statistic over its degrees of freedom is 1 on average
    parts = [(seen_often[each] - count * p) ** 2 / (count * p) for each, p in reached.items()]
    assert sum(parts) / (len(parts) - 1) < 1.6
