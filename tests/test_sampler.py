"""Generation against the published algorithm in plain loops, and against frequencies."""

import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from naive_sampler import naive_sample
from sampler_models import END, MASK, TURN, Fixed, TinyNet, bert, llada, prompts

from weft_rl.sampler import SamplerConfig, generate
from weft_rl.sampler.rng import stream_keys, uniform


def some_config(rng, **options):
    width, blocks = rng.randint(1, 6), rng.randint(1, 3)
    return SamplerConfig(width * blocks, width, blocks * rng.randint(1, width), **options)


def naive(model, prompt, seed, config):
    """The oracle on one prompt without padding, with the draws that our law gives this row."""

    def drawn(purpose):
        keys = stream_keys([seed], purpose)
        return lambda step, place: uniform(keys, np.array([step]), np.array([place])).item()

    def logits_of(ids):
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).logits[0].float()

    names = ("gen_length", "block_length", "steps", "temperature", "cfg_scale")
    options = {name: getattr(config, name) for name in names}
    options["token_draw"] = drawn("token")
    options["position_draw"] = drawn("position") if config.remasking == "random" else None
    return naive_sample(logits_of, prompt.tolist(), MASK, **options)


def assert_equals_naive(model, rng, vocab_size, batch, **options):
    config = some_config(rng, early_stop=False, trace=True, **options)
    ids, visible = prompts(rng, batch, vocab_size)
    seeds = [rng.randrange(1000) for _ in range(batch)]
    out = generate(model, ids, config, visible, seeds)
    for row in range(batch):
        prompt = ids[row][visible[row].bool()]
        tokens, history = naive(model, prompt, seeds[row], config)
        assert out.completions[row].tolist() == tokens, (config, ids, visible, seeds)
        ours = sorted((e["step"], e["position"], e["token"]) for e in out.trace[row])
        assert ours == sorted((e.step, e.position, e.token) for e in history)
        sure = {e.position: e.confidence for e in history}
        for entry in out.trace[row]:
            assert entry["confidence"] == pytest.approx(sure[entry["position"]], rel=1e-4)
    assert out.forwards == config.steps


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("cfg_scale", [0.0, 0.7])
@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
def test_equals_the_published_algorithm(temperature, cfg_scale, remasking):
    options = {"temperature": temperature, "cfg_scale": cfg_scale, "remasking": remasking}
    for case in range(20):
        rng = random.Random(case)
        size, batch = rng.randint(5, 12), rng.randint(1, 4)
        assert_equals_naive(TinyNet(size, case), rng, size, batch, **options)
    for case in range(2):
        assert_equals_naive(llada(case), random.Random(case), 13, 3, **options)


@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
@pytest.mark.parametrize("model", [TinyNet(11, 0), bert()], ids=["distances", "BERT"])
def test_a_row_is_the_same_alone_and_in_any_batch(model, remasking):
    """Without position ids the padding would move BERT's learned positions."""
    ids, visible = prompts(random.Random(0), 6, 11, spare=4)
    seeds = [5, 0, 7, 7, 2**40, -1]
    config = SamplerConfig(8, 4, 6, temperature=1.0, remasking=remasking, cfg_scale=0.5)
    together = generate(model, ids, config, visible, torch.tensor(seeds))
    order = [3, 1, 5, 0, 4, 2]
    shuffled = generate(model, ids[order], config, visible[order], [seeds[i] for i in order])
    assert shuffled.completions.tolist() == together.completions[order].tolist()
    for row, seed in enumerate(seeds):
        alone = generate(model, ids[row][visible[row].bool()][None], config, seeds=[seed])
        assert alone.completions[0].tolist() == together.completions[row].tolist()
        assert alone.lengths[0] == together.lengths[row]


# what 4 degrees of freedom exceed once in a thousand
CHI_SQUARE_4 = 18.47


@pytest.mark.parametrize(
    ("rows", "length", "steps"), [(50, 400, 1), (4000, 4, 4)], ids=["positions", "rows and steps"]
)
def test_tokens_follow_the_softmax_at_the_temperature(rows, length, steps):
    logits = torch.tensor([0.5, -1.0, 0.0, 9.0, 1.0, -0.5])  # the mask token's is 9
    # random remasking, because the most confident of several draws is not distributed like a draw
    options = {"temperature": 0.7, "remasking": "random", "early_stop": False}
    config = SamplerConfig(length, length, steps, **options)
    out = generate(Fixed(logits), torch.zeros(rows, 1, dtype=torch.long), config)
    allowed = [0, 1, 2, 4, 5]
    expected = (logits[allowed] / 0.7).softmax(dim=0) * rows * length
    found = out.completions.flatten().bincount(minlength=6)[allowed]
    assert ((found - expected) ** 2 / expected).sum() < CHI_SQUARE_4


def joint_law(model, prompt, temperature, words):
    """Of two tokens, one a step, the more confident candidate first: {(first, second): p}."""

    def laws(tokens):
        """For each position: the law of its candidate, and each word's confidence."""
        ids = torch.tensor([[*prompt, *tokens]])
        logits = model(input_ids=ids).logits[0, len(prompt) :].float()
        law = (logits[:, words] / temperature).softmax(dim=-1).tolist()
        return law, logits.softmax(dim=-1)[:, words].tolist()

    found = dict.fromkeys(product(words, words), 0.0)
    (left, right), (sure_left, sure_right) = laws([MASK, MASK])
    for i, j in product(range(len(words)), repeat=2):
        p = left[i] * right[j]
        if sure_left[i] >= sure_right[j]:
            for k, q in enumerate(laws([words[i], MASK])[0][1]):
                found[words[i], words[k]] += p * q
        else:
            for k, q in enumerate(laws([MASK, words[j]])[0][0]):
                found[words[k], words[j]] += p * q
    return found


def test_completions_follow_the_law_by_enumeration():
    model, prompt, words, rows = TinyNet(5, 4), [4, 0], [0, 1, 2, 4], 20_000
    law = joint_law(model, prompt, 1.5, words)
    assert sum(law.values()) == pytest.approx(1)
    config = SamplerConfig(2, 2, 2, temperature=1.5, early_stop=False)
    out = generate(model, torch.tensor(prompt).expand(rows, -1), config)
    found = Counter(map(tuple, out.completions.tolist()))
    statistic = sum((found[pair] - p * rows) ** 2 / (p * rows) for pair, p in law.items())
    assert min(law.values()) * rows > 5
    # what 15 degrees of freedom exceed once in a thousand
    assert statistic < 37.7


def test_ties_go_to_the_lowest_token_and_position():
    config = SamplerConfig(40, 40, 10, trace=True)
    for rows in (1, 8):
        out = generate(Fixed([0.0, -1.0, 0.0, 5.0, 0.0]), torch.zeros(rows, 1).long(), config)
        assert out.completions.unique().tolist() == [0]
        for trace in out.trace:
            assert [entry["position"] for entry in trace] == list(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"remasking": "random"}, {"threshold": 0.4}])
def test_early_stop_changes_nothing_up_to_the_end(options):
    stopped_early = 0
    for case in range(25):
        rng, model = random.Random(case), TinyNet(6, case)
        ids, visible = prompts(rng, 4, 6)
        config = SamplerConfig(12, 4, 12, temperature=1.0, **options)
        full = SamplerConfig(12, 4, 12, temperature=1.0, early_stop=False, **options)
        short, whole = (generate(model, ids, form, visible) for form in (config, full))
        assert short.lengths.equal(whole.lengths)
        assert short.forwards <= whole.forwards
        stopped_early += short.forwards < whole.forwards
        for row, length in enumerate(short.lengths.tolist()):
            end = whole.completions[row, : length + 1]
            assert short.completions[row, : length + 1].equal(end)
            assert MASK not in short.completions[row]
            assert not set(end[:length].tolist()) & {END, TURN}
    assert stopped_early > 5


def test_a_finished_row_costs_nothing():
    model, sizes = llada(), []
    model.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.logits.shape)))
    ids = torch.tensor([*product(range(4, 8), repeat=3)])[:32]
    out = generate(model, ids, SamplerConfig(12, 4, 12, temperature=1.0))
    # the head is computed for what is masked in the active block of rows that are still open
    assert {shape[1] for shape in sizes} == {13}
    left = [4, 3, 2, 1] * 3
    rows = [shape[0] / count for shape, count in zip(sizes, left, strict=False)]
    assert rows[0] == 32
    assert rows == sorted(rows, reverse=True)
    assert 1 <= rows[-1] < 32
    assert len(rows) == out.forwards


def test_limits_of_the_threshold():
    """At zero a step per block, at one a token per step."""
    ids, visible = prompts(random.Random(3), 4, 9)
    blocks, tokens, greedy = (
        generate(TinyNet(9, 0), ids, SamplerConfig(12, 4, steps, early_stop=False, **rule), visible)
        for steps, rule in ((3, {"threshold": 0.0}), (3, {"threshold": 1.0}), (12, {}))
    )
    assert (blocks.forwards, tokens.forwards) == (3, 12)
    assert tokens.tokens.equal(greedy.tokens)
