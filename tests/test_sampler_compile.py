"""Compiled sampling: one shape of batch from the first step to the last, and the same tokens."""

import random
from dataclasses import replace

import pytest
import torch
from sampler_models import llada, prompts
from torch._dynamo.testing import CompileCounter

from weft_rl.sampler import SamplerConfig, generate


@pytest.mark.parametrize(
    ("options", "graphs"),
    [
        ({"cfg_scale": 0.5}, 1),
        # the whole canvas, and a window
        ({"cache": "dual", "refresh_every": 2, "temperature": 1.0}, 2),
    ],
)
def test_each_forward_is_compiled_once_and_gives_the_same(monkeypatch, options, graphs):
    counter, compiled = CompileCounter(), torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch,
        "compile",
        lambda model, dynamic, mode: compiled(model, backend=counter, dynamic=dynamic),
    )
    # prompts of several lengths, rows that end early, and fewer places than rows
    ids, visible = prompts(random.Random(3), 6, 9, spare=2)
    config = SamplerConfig(12, 4, 12, **options)
    plain = generate(llada(), ids, config, visible, batch_size=4)
    steps = []
    fixed = generate(
        llada(), ids, replace(config, compile=True), visible, batch_size=4, on_step=steps.append
    )
    assert counter.frame_count == graphs
    assert fixed.tokens.equal(plain.tokens)
    assert fixed.forwards == plain.forwards
    assert plain.lengths.min() < plain.lengths.max() == 12
    assert steps[-1].finished == 6
    assert steps[-1].share == 1
