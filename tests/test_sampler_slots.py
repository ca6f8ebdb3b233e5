"""Rows that share a batch, its slots and first forwards: equal results, progress, peak memory."""

import random
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from allocations import allocated
from sampler_models import TinyNet, bert, llada, prompts
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from weft_rl.sampler import SamplerConfig, generate
from weft_rl.sampler.model_runner import ModelRunner


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"remasking": "random"}, {"threshold": 0.4}])
@pytest.mark.parametrize("model", [TinyNet(11, 0), bert()], ids=["distances", "BERT"])
def test_a_finished_rows_place_is_taken_and_nothing_else_changes(model, options):
    rng = random.Random(8)
    ids, visible = prompts(rng, 7, 11, spare=3)
    seeds = [rng.randrange(1000) for _ in range(7)]
    config = SamplerConfig(12, 4, 12, temperature=1.0, trace=True, cfg_scale=0.4, **options)
    whole = generate(model, ids, config, visible, seeds)
    forwards = []
    for batch_size in (1, 4, 20):
        out = generate(model, ids, config, visible, seeds, batch_size=batch_size)
        assert out.tokens.equal(whole.tokens)
        assert out.lengths.equal(whole.lengths)
        steps = [[{**e, "confidence": 0} for e in row] for row in out.trace]
        assert steps == [[{**e, "confidence": 0} for e in row] for row in whole.trace]
        forwards.append(out.forwards)
    rows = [slice(i, i + 1) for i in range(7)]
    alone = [generate(model, ids[i], config, visible[i], seeds[i]).forwards for i in rows]
    assert forwards[0] == sum(alone)
    assert forwards[-1] == whole.forwards == max(alone)


def noting_rows():
    """A model, and the number of rows of each of its forwards to come."""
    model, rows = llada(), []
    model.register_forward_pre_hook(
        lambda _, __, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    return model, rows


def test_places_are_never_empty_while_somebody_waits():
    model, sizes = noting_rows()
    ids = torch.tensor([*product(range(4, 8), repeat=3)])[:20]
    config = SamplerConfig(12, 4, 12, temperature=1.0)
    steps = []
    generate(model, ids, config, batch_size=6, on_step=steps.append)
    waited = [step.finished < 20 - 6 for step in steps[:-1]]
    assert sizes[0] == 6
    assert all(size == 6 for size, busy in zip(sizes[1:], waited, strict=True) if busy)
    # which is more than four rows at a time, until the last prompt had begun
    assert sum(waited) > 12


def test_steps_tell_what_happened_and_how_far_it_is():
    ids, visible = prompts(random.Random(9), 7, 12)
    config = SamplerConfig(8, 4, 8, temperature=1.0, trace=True)
    steps, model = [], TinyNet(12, 3)
    out = generate(model, ids, config, visible, batch_size=3, on_step=steps.append)
    found = np.full((7, 8), -1)
    for step in steps:
        assert (found[step.rows, step.positions] == -1).all()
        found[step.rows, step.positions] = step.tokens
        assert ((step.confidences > 0) & (step.confidences <= 1)).all()
    known = found >= 0
    assert (found == out.completions.numpy())[known].all()
    assert known.sum() == steps[-1].committed == sum(len(trace) for trace in out.trace)
    assert [step.forwards for step in steps] == [*range(1, out.forwards + 1)]
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert (shares[-1], steps[-1].finished, steps[-1].total) == (1.0, 7, 7)
    times = [step.seconds for step in steps]
    assert times == sorted(times)


ATEN = torch.ops.aten
# values read on the host, and shapes that depend on them
WAITS = (ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.masked_select.default)


class Waits(TorchDispatchMode):
    """Counts what waits for the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in WAITS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"cache": "dual", "threshold": 0.5}])
def test_one_transfer_a_step(options, monkeypatch):
    transfers, copy = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: transfers.append(tuple(x.shape)) or copy(x))
    ids, visible = prompts(random.Random(9), 4, 13)
    model, seen = llada(), []
    config = SamplerConfig(12, 4, 12, temperature=1.0, cfg_scale=0.5, early_stop=False, **options)
    with Waits() as waits:

        def on_step(step):
            seen.append((len(transfers), waits.count))
            assert transfers[-1][0] == 2
            assert transfers[-1][1] <= 4 * 4

        generate(model, ids, config, visible, on_step=on_step)
    # between one step and the next
    assert {(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(seen)} == {(1, 0)}


# beside the logits: their softmax; or the weights, and those in float64 while they are summed
@pytest.mark.parametrize(("temperature", "times"), [(0.0, 2), (1.0, 4)])
def test_peak_memory_is_for_open_positions_not_for_the_canvas(temperature, times):
    vocab_size, width, rows = 20_000, 4, 4
    model = llada(vocab_size=vocab_size, max_position_embeddings=512)
    config = SamplerConfig(16, width, 16, temperature=temperature, early_stop=False)
    short, long = (
        allocated(lambda ids=ids: generate(model, ids, config))
        for ids in (torch.full((rows, 16), 5), torch.full((rows, 256), 5))
    )
    logits = 4 * rows * width * vocab_size  # float32 at the open positions
    assert logits < short < (times + 0.1) * logits
    # another 240 positions with logits would be 60 times as much
    assert long - short < 0.25 * logits


OPTIONS = [{}, {"cfg_scale": 0.6}, {"cache": "prefix"}, {"cache": "dual", "cfg_scale": 0.6}]
OPTIONS += [{"cache": "dual", "refresh_every": 2}, {"threshold": 0.3}, {"remasking": "random"}]


def repeated(rng, kinds, times):
    """Prompts of different lengths, each `times` times, not next to each other."""
    ids, visible = prompts(rng, kinds, 13)
    order = [*range(kinds)] * times
    rng.shuffle(order)
    return ids[order], visible[order]


@pytest.mark.slow
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
    model, sent = noting_rows()
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


@pytest.mark.slow
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

    def counted(model, dynamic, mode):
        return compiled(model, backend=counter, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", counted)
    # prompts of several lengths, rows that end early, and fewer places than rows
    ids, visible = prompts(random.Random(3), 6, 9, spare=2)
    config = SamplerConfig(12, 4, 12, **options)
    plain = generate(llada(), ids, config, visible, batch_size=4)
    steps, config = [], replace(config, compile=True)
    fixed = generate(llada(), ids, config, visible, batch_size=4, on_step=steps.append)
    assert counter.frame_count == graphs
    assert fixed.tokens.equal(plain.tokens)
    assert fixed.forwards == plain.forwards
    assert plain.lengths.min() < plain.lengths.max() == 12
    assert steps[-1].finished == 6
    assert steps[-1].share == 1
