"""What a step computes, by formula: its forwards, how many rows go through each, and their time.

A model of the trainers' and the sampler's schedules. Completions are taken to end nowhere, so that
a sampler has its most forwards; further attempts at a rollout's groups are left out."""

from dataclasses import replace
from itertools import pairwise
from math import ceil, gcd
from typing import NamedTuple

from weft_rl.config.rl import RLConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import RunConfig
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.diffusion.rl_methods import ESTIMATORS, RL_LOSSES, views_of
from weft_rl.evaluation.settings import evaluation_settings, most_records
from weft_rl.families.shape import ModelShape
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.memory import (
    HARDWARE,
    Hardware,
    Step,
    backward_share,
    forward_operations,
    head_operations,
)

_TERA = 1e12
# Seconds that Python takes to launch a layer, and one adapted matrix of it, on a GPU: 22 ms a
# forward of a cached row through 32 layers; and RL's passes of a single row, four matrices adapted
# (benchmarks/results/gpu.json, sampler and rl). Less work than that makes no forward shorter.
_LAYER_S, _ADAPTED_S = 0.7e-3, 0.6e-3
# What a layer takes beyond that where all weights are trained, kept in float32 and cast for each
# product: one number for pretraining, WeFT and RL of the preset small, 12 layers
# (benchmarks/results/small.json). Those are whole stages, so it holds the rest of a step as well:
# masks, clipping, the optimizer (one launch for all weights), checkpoints.
_WHOLE_S = 1.65e-3


class Forwards(NamedTuple):
    """Forwards of one kind, of one device in a step."""

    what: str
    number: float  # the way back counts as the forwards that it computes
    rows: float  # of each
    operations: float  # of each
    # through what is trained: adapters, or float32 weights; not a start or a merged model alone
    trained: bool = True


class Work(NamedTuple):
    """A step's."""

    forwards: list[Forwards]
    tokens: int  # on all devices, trained on
    steps: int


def rows_of_pass(rl: RLConfig, completions: int, steps: int) -> float:
    """Rows of a forward for the log-probabilities of so many completions, its micro-batch's mean.

    Each is seen in an estimator's views. A view with everything hidden is the same for all of a
    group that shares its masks (rl.masks.share_group_masks), and goes through the model once.
    steps: the sampler's. Views that chance makes alike are not taken off."""
    masks = rl.masks
    views = views_of(rl.estimator, masks.num_mc_samples, masks.complement, steps)
    shared = masks.share_group_masks and ESTIMATORS[rl.estimator].shared_view
    if not shared:
        return completions * views
    size = rl.num_generations
    # groups that a micro-batch has a part of, as it may begin inside one
    groups = (completions + size - gcd(completions, size)) / size
    return groups + completions * (views - 1)


def base_work(config: RunConfig, step: Step) -> Work:
    """Of pretraining, which one device does: whole answers of rows of one length."""
    rows, masked = config.base.batch_size, step.predicted // 2  # on average
    forwards = [_there_and_back(step, 1, rows, step.length, masked)]
    return Work(forwards, rows * step.length, config.base.max_steps)


def _there_and_back(step: Step, times: float, rows: float, length: int, predicted: int) -> Forwards:
    """Training passes of so many rows; a head in parts is computed once more on the way back."""
    network, trained = step.network, 1 + backward_share(step.network)
    again = head_operations(network, predicted) * step.in_parts / trained
    operations = rows * (forward_operations(network, length, predicted) + again)
    return Forwards("training", times * trained, rows, operations)


def cold_start_work(config: RunConfig, options: PlanConfig, stage: str, step: Step) -> Work:
    """Of a cold start, whose records have options.trace_length tokens on average."""
    cold, network = config.cold_start, step.network
    length = min(options.trace_length or step.length, step.length)
    # a half of the tokens is masked, on average, and has a loss; the estimate is of all of them
    masked = length // 2
    kept = cold.entropy_pass.refresh_every if cold.entropy_pass.rates == "cached" else 1
    one = forward_operations(network, length, masked)
    whole = forward_operations(network, length, length)
    times, size = cold.gradient_accumulation_steps, cold.batch_size
    forwards = [_there_and_back(step, times, size, length, masked)]
    if RECIPES[stage].needs_entropy:
        forwards.append(Forwards("estimate", times / kept, size, size * whole))
    if RECIPES[stage].needs_reference:
        forwards.append(Forwards("reference", times, size, size * one, trained=False))
    rows = size * times * options.devices
    steps = ceil(ceil(options.traces / rows) * cold.epochs)
    return Work(forwards, rows * length, steps)


def rl_work(config: RunConfig, options: PlanConfig, step: Step) -> Work:
    """Of RL: its part of a rollout, which serves mu steps, and a pass over all of it.

    Raises UserError where so many devices cannot share a rollout."""
    rl, sampler, network = config.rl, config.sampler, step.network
    count, size = rl.num_prompts * rl.num_generations, rl.micro_batch(options.devices)
    share = count // options.devices
    parts, rows = share // size, rows_of_pass(rl, size, sampler.most_steps)
    forwards = [
        each._replace(number=each.number / rl.num_iterations)
        for each in rollout(network, sampler, share, options.prompt_length)
    ]
    whole = forward_operations(network, step.length, sampler.gen_length)
    if old := _old_passes(rl):
        forwards.append(Forwards("old policy", old * parts, rows, rows * whole))
    if rl.kl_coef:
        whole_trained = rl.lora.r == 0  # with an adapter the reference is the model without it
        forwards.append(Forwards("reference", parts, rows, rows * whole, whole_trained))
    forwards.append(_there_and_back(step, parts, rows, step.length, sampler.gen_length))
    return Work(forwards, count * step.length, rl.max_steps)


def _old_passes(rl: RLConfig) -> float:
    """Passes over a rollout for the sampling policy's log-probabilities, in one of its mu steps."""
    if rl.loss.top_entropy_share < 1 or rl.loss.kl_cov_share > 0:
        return 1.0
    # the first of the mu begins with that very policy
    return (1 - 1 / rl.num_iterations) if RL_LOSSES[rl.loss_type].has_ratio else 0.0


def rollout(
    network: ModelShape, sampler: SamplerConfig, rows: int, prompt_length: int
) -> list[Forwards]:
    """All forwards of a sampler for so many completions.

    As many as a completion can take: with sampler.threshold or factor one for each token (rows that
    wait for each other with sampler.refresh_every may need some more). Without a cache each sees
    all tokens. With one a block begins with such a forward, which sampler.refresh_every repeats,
    and the others take in a window: the block (dual), or all from its beginning on (prefix).
    Guidance doubles the rows of each."""
    width, total = sampler.block_length, prompt_length + sampler.gen_length
    blocks = sampler.gen_length // width
    steps = sampler.most_steps // blocks
    refreshes = ceil(steps / (sampler.refresh_every or steps))
    every = steps if sampler.cache == "none" else refreshes
    sent = rows * (2 if sampler.cfg_scale else 1)
    whole = sent * forward_operations(network, total, width)
    forwards = [Forwards("rollout", blocks * every, sent, whole)]
    for begin in range(0, sampler.gen_length, width) if steps > every else ():
        window = width if sampler.cache == "dual" else sampler.gen_length - begin
        operations = sent * forward_operations(network, window, width, total)
        forwards.append(Forwards("window", steps - every, sent, operations))
    return forwards


def evaluation_forwards(
    network: ModelShape, sampler: SamplerConfig, records: int, batch_size: int, prompt_length: int
) -> list[Forwards]:
    """All forwards of an evaluation of so many records: full batches, and one of what is left."""
    whole, rest = divmod(records, batch_size)
    return [
        each._replace(number=batches * each.number)
        for batches, rows in ((whole, batch_size), (1, rest))
        if batches * rows
        for each in rollout(network, sampler, rows, prompt_length)
    ]


def evaluation_seconds(
    config: RunConfig, options: PlanConfig, stage: str, network: ModelShape
) -> float | None:
    """Time of a device's share of the evaluation after a stage, and of those while RL trains.

    None where it is not known how many records there are."""
    settings, watch = evaluation_settings(config), config.rl.watch

    def seconds(loaded: ModelShape, records: int, trained: bool) -> float:
        share, size = ceil(records / options.devices), config.eval.batch_size
        own = evaluation_forwards(loaded, settings.sampler, share, size, options.prompt_length)
        own = [each._replace(trained=trained) for each in own]
        return seconds_of(own, loaded, HARDWARE[options.hardware], options.utilisation)

    total = 0.0
    if stage == "rl" and watch.evaluate_steps is not None:
        few = most_records(config.task, replace(settings, num_records=watch.evaluate_records))
        times = config.rl.max_steps // watch.evaluate_steps
        total += times * seconds(network, few or 0, trained=True)
    if config.eval.after_each or (stage, "eval") in pairwise(config.in_order):
        records = most_records(config.task, settings)
        if records is None:
            return None
        # adapters are merged, but not into four bits; the paper's evaluation is in bfloat16 on GPUs
        four = network.weights == "nf4"
        narrow = network.half and settings.style == "d1_eval" and not four
        loaded = replace(network, weights="bfloat16") if narrow else network
        total += seconds(loaded, records, trained=four)
    return total


def seconds_of(
    forwards: list[Forwards], network: ModelShape, device: Hardware, utilisation: float
) -> float:
    """Time of these forwards, each bound by its operations, by the weights that it reads, or by
    their launching. A way back is launched like as many forwards as it computes."""
    on_gpu = network.half  # where launching was measured
    layers = network.sizes.num_hidden_layers if on_gpu else 0
    adapters = len(network.adapted()) if on_gpu and network.lora.r else 0
    whole = network.lora.r == 0 and network.weights == "float32"
    more = layers * _WHOLE_S if whole else adapters * _ADAPTED_S
    return sum(
        each.number
        * max(
            each.operations / (device.tera_operations * _TERA * utilisation),
            network.weight_bytes() / (device.tera_bytes * _TERA),
            layers * _LAYER_S + each.trained * more,
        )
        for each in forwards
    )
