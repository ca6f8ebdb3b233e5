"""Cached keys and values: equal to full forwards in their limits, and rows still independent."""

import random
from itertools import product

import pytest
import torch
from sampler_models import llada, prompts

from weft_rl.models import LLaDAForMaskedLM
from weft_rl.sampler import SamplerConfig, generate

CACHES = ("prefix", "dual")


def model_for(seed, **options):
    # float64, where windows and batches of another shape move no token
    return llada(seed, **options).double()


class BlockCausal(LLaDAForMaskedLM):
    """Sees the prompt and the blocks up to its own: nothing that a cache keeps can change."""

    block_length = 4
    gen_length = 4

    def visible(self, attention_mask, batch, length):
        place = torch.arange(length) - (length - self.gen_length)
        block = place.div(self.block_length, rounding_mode="floor").clamp(min=-1)
        seen = block[:, None] >= block  # (L, L)
        if attention_mask is not None:
            seen = seen & attention_mask.bool()[:, None, None, :]
        return seen.expand(batch, 1, length, length)

    def forward(self, input_ids, attention_mask=None, cache=None, **options):
        in_window = cache is not None and cache.positions is not None
        length = cache.keys.shape[3] if in_window else input_ids.shape[1]
        seen = self.visible(attention_mask, len(input_ids), length)
        if in_window:  # each query keeps its own row of what it may see
            index = cache.positions[:, None, :, None].expand(-1, 1, -1, length)
            seen = seen.gather(2, index)
        hooks = [
            block.register_forward_pre_hook(lambda _, args: (*args[:2], seen, *args[3:]))
            for block in self.model.transformer.blocks
        ]
        try:
            return super().forward(input_ids, attention_mask, cache=cache, **options)
        finally:
            for hook in hooks:
                hook.remove()


def some_options(rng):
    width, blocks = rng.randint(1, 5), rng.randint(1, 4)
    steps = blocks * rng.randint(1, width)
    rule = rng.choice([{}, {"threshold": 0.3}, {"factor": 0.8}, {"remasking": "random"}])
    options = {"temperature": rng.choice([0.0, 0.8]), "cfg_scale": rng.choice([0.0, 0.6])}
    options |= {"end_tokens": rng.choice(["free", "late", "never"]), **rule}
    return (width * blocks, width, steps), options


@pytest.mark.parametrize("cache", CACHES)
def test_refreshed_every_step_is_exact(cache):
    for case in range(24):
        rng = random.Random(case)
        sizes, options = some_options(rng)
        ids, visible = prompts(rng, rng.randint(1, 4), 13)
        model = model_for(case, rope=case % 3 > 0)
        exact = generate(model, ids, SamplerConfig(*sizes, **options), visible)
        config = SamplerConfig(*sizes, cache=cache, refresh_every=1, **options)
        kept = generate(model, ids, config, visible)
        assert kept.tokens.equal(exact.tokens), (case, sizes, options)
        assert kept.forwards == exact.forwards


@pytest.mark.parametrize("cache", CACHES)
def test_exact_where_nothing_kept_can_change(cache):
    saved = 0
    for case in range(24):
        rng = random.Random(case)
        sizes, options = some_options(rng)
        ids, visible = prompts(rng, rng.randint(1, 4), 13)
        model = BlockCausal(llada(case).config).double()
        model.load_state_dict(model_for(case).state_dict())
        model.gen_length, model.block_length = sizes[:2]
        exact = generate(model, ids, SamplerConfig(*sizes, **options), visible)
        config = SamplerConfig(*sizes, cache=cache, **options)
        kept = generate(model, ids, config, visible)
        assert kept.tokens.equal(exact.tokens), (case, sizes, options)
        saved += kept.forwards > sizes[0] // sizes[1]
    # some blocks took more than their first, full, forward
    assert saved > 8


def test_one_step_a_block_leaves_nothing_to_keep():
    for cache, case in product(CACHES, range(4)):
        rng = random.Random(case)
        ids, visible = prompts(rng, 3, 13)
        exact = generate(model_for(case), ids, SamplerConfig(12, 4, 3), visible)
        kept = generate(model_for(case), ids, SamplerConfig(12, 4, 3, cache=cache), visible)
        assert kept.tokens.equal(exact.tokens)
        assert kept.forwards == exact.forwards <= 3


def test_with_one_block_both_caches_keep_the_prompt():
    differ = 0
    for case in range(8):
        rng = random.Random(case)
        ids, visible = prompts(rng, 3, 13)
        found = [
            generate(model_for(case), ids, SamplerConfig(8, 8, 8, cache=cache), visible)
            for cache in ("none", *CACHES)
        ]
        assert found[1].tokens.equal(found[2].tokens)
        differ += not found[0].tokens.equal(found[1].tokens)
    # and the prompt's keys were kept from before the completion was known: an approximation
    assert differ > 0


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("rule", [{}, {"threshold": 0.3}, {"factor": 0.8}, {"refresh_every": 2}])
@pytest.mark.parametrize("cfg_scale", [0.0, 0.5])
def test_a_row_is_the_same_alone_in_a_batch_and_in_any_slot(cache, rule, cfg_scale):
    rng, model = random.Random(7), model_for(7)
    ids, visible = prompts(rng, 7, 13)
    options = {"temperature": 0.8, "cfg_scale": cfg_scale, **rule}
    config = SamplerConfig(12, 4, 9, cache=cache, **options)
    together = generate(model, ids, config, visible)
    alone = []
    for row in range(7):
        own = ids[row][visible[row].bool()][None]
        alone.append(generate(model, own, config, seeds=[row]))
        assert alone[row].completions[0].equal(together.completions[row])
    for batch_size in (1, 2, 3, 6):
        slots = generate(model, ids, config, visible, batch_size=batch_size)
        assert slots.tokens.equal(together.tokens)
        assert slots.lengths.equal(together.lengths)


def queries(model, config, ids):
    """Tokens that each forward puts through the layers, and the output."""
    sizes = []
    model.register_forward_pre_hook(
        lambda _, __, options: sizes.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    return generate(model, ids, config), sizes


def test_what_goes_through_the_layers():
    ids = torch.full((2, 3), 5)
    options = {"early_stop": False}
    _, dual = queries(model_for(0), SamplerConfig(8, 4, 8, cache="dual", **options), ids)
    assert dual == [11, 4, 4, 4] * 2
    _, prefix = queries(model_for(0), SamplerConfig(8, 4, 8, cache="prefix", **options), ids)
    assert prefix == [11, 8, 8, 8, 11, 4, 4, 4]
    often = SamplerConfig(8, 4, 8, cache="dual", refresh_every=2, **options)
    _, refreshed = queries(model_for(0), often, ids)
    assert refreshed == [11, 4] * 4


def test_a_block_done_at_once_is_one_forward():
    ids = torch.full((2, 3), 5)
    config = SamplerConfig(12, 4, 12, cache="dual", threshold=0.0, early_stop=False)
    out, sizes = queries(model_for(0), config, ids)
    assert out.forwards == 3
    assert sizes == [15] * 3


def test_adapters_have_a_cache_too():
    from peft import LoraConfig, get_peft_model

    ids, config = torch.full((2, 3), 5), SamplerConfig(8, 4, 8, cache="dual")
    expected = generate(llada(), ids, config)
    model = get_peft_model(llada(), LoraConfig(target_modules=["q_proj"]))
    assert generate(model, ids, config).tokens.equal(expected.tokens)
