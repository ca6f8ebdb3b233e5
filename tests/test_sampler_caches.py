"""Cached keys and values: equal to full forwards in their limits, and rows still independent."""

import random
from itertools import product

import pytest
import torch
from sampler_models import llada, prompts

from weft_rl.sampler import SamplerConfig, generate

CACHES = ("prefix", "dual")


def model_for(seed, **options):
    # float64, where windows and batches of another shape move no token
    return llada(seed, **options).double()


def block_causal(model, gen_length, block_length):
    """Sees the prompt and the blocks up to its own: nothing that a cache keeps can change."""

    def narrowed(_, arguments):
        x, rotation, visible, cache, *more = arguments
        length = x.shape[1] if cache is None else cache.keys.shape[3]
        place = torch.arange(length) - (length - gen_length)
        block = place.div(block_length, rounding_mode="floor").clamp(min=-1)
        seen = (block[:, None] >= block).expand(len(x), 1, -1, -1)
        if cache is not None and cache.positions is not None:
            # each query keeps its own row of what it may see
            seen = seen.gather(2, cache.positions[:, None, :, None].expand(-1, 1, -1, length))
        return x, rotation, seen if visible is None else seen & visible, cache, *more

    for block in model.model.transformer.blocks:
        block.register_forward_pre_hook(narrowed)
    return model


def some_options(rng):
    width, blocks = rng.randint(1, 5), rng.randint(1, 4)
    steps = blocks * rng.randint(1, width)
    rule = rng.choice([{}, {"threshold": 0.3}, {"factor": 0.8}, {"remasking": "random"}])
    options = {"temperature": rng.choice([0.0, 0.8]), "cfg_scale": rng.choice([0.0, 0.6])}
    options |= {"end_tokens": rng.choice(["free", "late", "never"]), **rule}
    return (width * blocks, width, steps), options


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("cache", CACHES)
def test_exact_where_nothing_kept_can_change(cache):
    saved = 0
    for case in range(24):
        rng = random.Random(case)
        sizes, options = some_options(rng)
        ids, visible = prompts(rng, rng.randint(1, 4), 13)
        model = block_causal(model_for(case), *sizes[:2])
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("rule", [{}, {"threshold": 0.3}, {"factor": 0.8}, {"refresh_every": 2}])
@pytest.mark.parametrize("cfg_scale", [0.0, 0.5])
def test_a_row_is_the_same_alone_in_a_batch_and_in_any_slot(cache, rule, cfg_scale):
    rng, model = random.Random(7), model_for(7)
    ids, visible = prompts(rng, 7, 13)
    options = {"temperature": 0.8, "cfg_scale": cfg_scale, **rule}
    config = SamplerConfig(12, 4, 9, cache=cache, **options)
    together = generate(model, ids, config, visible)
    for row in range(7):
        alone = generate(model, ids[row][visible[row].bool()][None], config, seeds=[row])
        assert alone.completions[0].equal(together.completions[row])
    for batch_size in (1, 2, 3, 6):
        slots = generate(model, ids, config, visible, batch_size=batch_size)
        assert slots.tokens.equal(together.tokens)
        assert slots.lengths.equal(together.lengths)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"cache": "dual"}, [11, 4, 4, 4] * 2),
        ({"cache": "prefix"}, [11, 8, 8, 8, 11, 4, 4, 4]),
        ({"cache": "dual", "refresh_every": 2}, [11, 4] * 4),
        # a block done at once is one forward
        ({"cache": "dual", "threshold": 0.0}, [11] * 2),
    ],
)
def test_what_goes_through_the_layers(options, sizes):
    """Tokens of each forward."""
    model, found = model_for(0), []
    model.register_forward_pre_hook(
        lambda _, __, options: found.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    config = SamplerConfig(8, 4, 8, early_stop=False, **options)
    assert generate(model, torch.full((2, 3), 5), config).forwards == len(sizes)
    assert found == sizes
