"""Rows of one prompt share their first forward, and none of them notices."""

import random

import pytest
import torch
from sampler_models import llada, prompts

from weft_rl.sampler import SamplerConfig, generate
from weft_rl.sampler.model_runner import ModelRunner

OPTIONS = [
    {},
    {"cfg_scale": 0.6},
    {"cache": "prefix"},
    {"cache": "dual", "cfg_scale": 0.6},
    {"cache": "dual", "refresh_every": 2},
    {"threshold": 0.3},
    {"remasking": "random"},
]


def repeated(rng, kinds, times):
    """Prompts of different lengths, each `times` times, not next to each other."""
    ids, visible = prompts(rng, kinds, 13)
    order = [*range(kinds)] * times
    rng.shuffle(order)
    return ids[order], visible[order]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_tokens_as_without_sharing(options, monkeypatch):
    cases = []
    for case in range(6):
        rng = random.Random(case)
        ids, visible = repeated(rng, 3, 4)
        sizes = rng.choice([(8, 8, 4), (12, 4, 6)])
        config = SamplerConfig(*sizes, temperature=rng.choice([0.0, 1.0]), **options)
        batch_size = rng.choice([None, 5])
        # float64, where a batch of another shape moves no token
        model = llada(case, rope=case % 2 > 0).double()

        def run(parts=(model, ids, config, visible), batch_size=batch_size):
            return generate(*parts, batch_size=batch_size)

        cases.append((run, run()))
    monkeypatch.setattr(ModelRunner, "first_forward", ModelRunner.full_forward)
    for run, shared in cases:
        alone = run()
        assert shared.tokens.equal(alone.tokens)
        assert shared.forwards == alone.forwards


def test_each_prompt_is_sent_once_in_the_first_step_and_each_row_afterwards():
    model, sent = llada(), []
    model.register_forward_pre_hook(
        lambda _, __, options: sent.append(len(options["input_ids"])), with_kwargs=True
    )
    ids, visible = repeated(random.Random(0), 3, 4)
    config = SamplerConfig(6, 6, 3, temperature=1.0, early_stop=False)
    generate(model, ids, config, visible)
    assert sent == [3, 12, 12]


def test_equal_tokens_behind_another_padding_are_another_prompt():
    ids, visible = torch.full((2, 4), 5), torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1]])
    config, model = SamplerConfig(6, 6, 2, temperature=1.0, trace=True), llada().double()
    both = generate(model, ids, config, visible, [0, 0])
    apart = [generate(model, ids[i:][:1], config, visible[i:][:1], [0]) for i in (0, 1)]
    assert both.completions.equal(torch.cat([out.completions for out in apart]))
    first, second = (sum(entry["confidence"] for entry in row) for row in both.trace)
    assert first != pytest.approx(second)
