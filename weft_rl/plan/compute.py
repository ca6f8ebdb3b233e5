"""FLOPs and time of forward passes.

A pass takes the time of its FLOPs at the configured utilization, or of reading the weights once,
whichever is longer. Launch overhead and communication are not counted."""

from dataclasses import replace
from itertools import pairwise
from math import ceil, gcd
from typing import NamedTuple

from weft_rl.config.rl import RLConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import RunConfig
from weft_rl.diffusion.rl_methods import ESTIMATORS, views_of
from weft_rl.evaluation.settings import evaluation_settings, most_records
from weft_rl.families.shape import ModelShape
from weft_rl.plan.config import HARDWARE, PlanConfig

_TERA = 1e12


class Forwards(NamedTuple):
    """Forward passes of one kind per device and optimizer step."""

    kind: str
    number: float  # backward passes count as forward passes of equal cost
    rows: float  # per pass
    flops: float  # per pass


def forward_flops(
    model: ModelShape, length: int, predicted: int, context: int | None = None
) -> float:
    """FLOPs of one row: 2 per weight and token, plus attention's two matmuls.

    context: tokens that each token attends to, including cached ones; None: the row's own."""
    sizes = model.sizes
    attention = 4.0 * sizes.num_hidden_layers * length * (context or length) * sizes.query_width
    head = 2.0 * predicted * sizes.vocab_size * sizes.hidden_size
    return 2.0 * length * model.layer_params + attention + head


def training_passes(model: ModelShape) -> float:
    """Cost of a forward and backward pass in forward passes.

    Forward pass, input gradients, weight gradients (no LoRA), recomputation (checkpointing)."""
    return 2.0 + (model.lora.r == 0) + model.checkpointing


def rows_per_pass(rl: RLConfig, completions: int, steps: int) -> float:
    """Mean rows of a forward pass for the log-probabilities of a micro-batch.

    steps: the sampler's. Each completion has one row per masked view of its estimator. With shared
    masks, a fully masked view is one row for its group."""
    masks = rl.masks
    views = views_of(rl.estimator, masks.num_mc_samples, masks.complement, steps)
    shared = masks.share_group_masks and ESTIMATORS[rl.estimator].shared_view
    if not shared:
        return completions * views
    size = rl.num_generations
    # groups that a micro-batch overlaps, as it may begin inside one
    groups = (completions + size - gcd(completions, size)) / size
    return groups + completions * (views - 1)


def rollout(
    model: ModelShape, sampler: SamplerConfig, rows: int, prompt_length: int
) -> list[Forwards]:
    """Sampler forward passes for a batch of completions that never end early.

    With a threshold or factor, each token takes its own pass. Without a cache, each pass runs all
    tokens. With one, only the first pass of a block and every refresh_every-th do; the others run
    the block (dual), or everything from its start (prefix). Guidance doubles the rows."""
    width, total = sampler.block_length, prompt_length + sampler.gen_length
    blocks = sampler.gen_length // width
    steps = sampler.most_steps // blocks
    refreshes = ceil(steps / (sampler.refresh_every or steps))
    full = steps if sampler.cache == "none" else refreshes
    rows *= 2 if sampler.cfg_scale else 1
    passes = [Forwards("rollout", blocks * full, rows, rows * forward_flops(model, total, width))]
    for begin in range(0, sampler.gen_length, width) if steps > full else ():
        window = width if sampler.cache == "dual" else sampler.gen_length - begin
        flops = rows * forward_flops(model, window, width, total)
        passes.append(Forwards("cached rollout", steps - full, rows, flops))
    return passes


def evaluation_seconds(
    config: RunConfig, options: PlanConfig, stage: str, model: ModelShape
) -> float | None:
    """Time of the evaluation after a stage and during RL; None for an unknown number of records."""
    settings, watch, records = evaluation_settings(config), config.rl.watch, 0
    if stage == "rl" and watch.evaluate_steps is not None:
        few = most_records(config.task, replace(settings, num_records=watch.evaluate_records))
        records += (few or 0) * (config.rl.max_steps // watch.evaluate_steps)
    if config.eval.after_each or (stage, "eval") in pairwise(config.in_order):
        final = most_records(config.task, settings)
        if final is None:
            return None
        records += final
    if records == 0:
        return 0.0
    share = ceil(records / options.devices)
    # computed as one batch: a full batch is limited by its FLOPs
    passes = rollout(model, settings.sampler, share, options.prompt_length)
    return seconds_of(passes, model, options)


def seconds_of(passes: list[Forwards], model: ModelShape, options: PlanConfig) -> float:
    """Time of forward passes on the plan's hardware."""
    device = HARDWARE[options.hardware]
    return sum(
        each.number
        * max(
            each.flops / (device.tera_flops * _TERA * options.utilization),
            model.weight_bytes() / (device.tera_bytes * _TERA),
        )
        for each in passes
    )
