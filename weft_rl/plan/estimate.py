"""The plan of each stage: model, memory, forward passes, time."""

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

from weft_rl.checkpoints.gguf import without_gguf
from weft_rl.checkpoints.lora_merge import base_of
from weft_rl.config.a2d import A2D_EVAL_DRAWS
from weft_rl.config.model import LoraConfig
from weft_rl.config.rl import RLConfig
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.data.toy import POSITIONS, SYMBOLS
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.diffusion.rl_methods import RL_LOSSES
from weft_rl.families import FAMILIES, family_of, read_config
from weft_rl.families.base import Family, Sizes
from weft_rl.families.llada import LLADA
from weft_rl.families.shape import ModelShape
from weft_rl.plan.compute import (
    Forwards,
    evaluation_seconds,
    forward_flops,
    rollout,
    rows_per_pass,
    seconds_of,
    training_passes,
)
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.memory import Step

# Memory and forward passes of an optimizer step, its tokens on all devices, number of steps.
_Work = tuple[Step, list[Forwards], int, int]


class StagePlan(NamedTuple):
    """Plan of a stage on one device."""

    stage: str
    model: ModelShape
    memory: dict[str, float]  # bytes by component
    passes: list[Forwards]  # per optimizer step
    tokens: int  # trained per optimizer step, on all devices
    steps: int
    step_s: float
    evaluation_s: float | None  # all evaluations; None if the number of records is unknown

    @property
    def total_memory(self) -> float:
        """Peak memory in bytes."""
        return sum(self.memory.values())

    @property
    def hours(self) -> float:
        """Hours of the stage, including its evaluations."""
        return (self.step_s * self.steps + (self.evaluation_s or 0.0)) / 3600


def make_plans(config: RunConfig, options: PlanConfig) -> list[StagePlan]:
    """Plan each training stage, including the pretraining of a toy model."""
    return [make_plan(config, options, stage) for stage in config.in_order if stage != "eval"]


def make_plan(config: RunConfig, options: PlanConfig, stage: str) -> StagePlan:
    """Plan a stage. Raises UserError for an unknown model or an indivisible rollout."""
    bf16 = options.hardware != "cpu"
    if stage == "base":  # one process pretrains in float32
        options = replace(options, devices=1, sharding="none")
        model = replace(model_shape(config, LoraConfig(0), bf16), weights="float32")
        work = _base(config, options, model)
    elif stage == "a2d":
        model = replace(model_shape(config, LoraConfig(0), bf16), weights="float32")
        work = _a2d(config, options, model)
    elif stage == "rl":
        model = model_shape(config, config.rl.lora, bf16)
        work = _rl(config, options, model)
    else:
        model = model_shape(config, config.cold_start.lora, bf16)
        work = _cold_start(config, options, stage, model)
    step, passes, tokens, steps = work
    step_s = seconds_of(passes, model, options)
    evaluation_s = evaluation_seconds(config, options, stage, model)
    return StagePlan(stage, model, step.memory(), passes, tokens, steps, step_s, evaluation_s)


def model_shape(config: RunConfig, lora: LoraConfig, bf16: bool) -> ModelShape:
    """Return the shape of the model as a stage trains it. bf16: autocast, as on a GPU.

    Raises UserError for an unknown model and for adapter targets that it lacks."""
    family, sizes = _architecture(config)
    auto = "bfloat16" if bf16 and config.adapters_only else "float32"
    weights = auto if config.memory.weights == "auto" else config.memory.weights
    shape = ModelShape(family, sizes, lora, weights, config.memory.gradient_checkpointing, bf16)
    shape.check_targets()
    return shape


def _architecture(config: RunConfig) -> tuple[Family, Sizes]:
    base = config.base
    if config.model in TOY_MODELS:
        heads = base.num_attention_heads
        layers = (base.hidden_size, base.num_hidden_layers, heads, heads, base.intermediate_size)
        return LLADA, Sizes(len(SYMBOLS), *layers, POSITIONS)
    place = base_of(without_gguf(config.model))
    for family in FAMILIES:
        known = {**family.published, **family.autoregressive}
        if place in {*known, *known.values()}:
            return family, family.published_sizes
    content = read_config(Path(place), adapt="a2d" in config.in_order)
    family, _ = family_of(content, Path(place))
    return family, family.sizes(content)


def _base(config: RunConfig, options: PlanConfig, model: ModelShape) -> _Work:
    rows, answer = config.base.batch_size, config.sampler.gen_length  # answers are padded to this
    step = Step(model, rows, options.prompt_length + answer, answer)
    # on average half of the answer is masked and needs logits
    flops = rows * forward_flops(model, step.length, answer // 2)
    passes = [Forwards("training", training_passes(model), rows, flops)]
    return step, passes, rows * step.length, config.base.max_steps


def _a2d(config: RunConfig, options: PlanConfig, model: ModelShape) -> _Work:
    a2d, rows, length = config.a2d, config.a2d.batch_size, config.a2d.max_length
    times = a2d.gradient_accumulation_steps
    step = Step(model, rows, length, length, times > 1, options.devices, options.sharding)
    # on average half of the tokens are masked and need logits
    flops = rows * forward_flops(model, length, length // 2)
    # held-out records may be shorter
    evaluated = a2d.eval_records * A2D_EVAL_DRAWS / (rows * options.devices * a2d.eval_every)
    passes = [
        Forwards("training", times * training_passes(model), rows, flops),
        Forwards("held-out NELBO", evaluated, rows, flops),
    ]
    return step, passes, rows * times * options.devices * length, a2d.max_steps


def _cold_start(config: RunConfig, options: PlanConfig, stage: str, model: ModelShape) -> _Work:
    cold, most = config.cold_start, config.cold_start.data.max_length
    times, rows = cold.gradient_accumulation_steps, cold.batch_size
    step = Step(model, rows, most, most, times > 1, options.devices, options.sharding)
    length = min(options.trace_length or most, most)
    # on average half of the tokens are masked and need logits; the entropy pass needs all logits
    flops = rows * forward_flops(model, length, length // 2)
    passes = [Forwards("training", times * training_passes(model), rows, flops)]
    if RECIPES[stage].needs_reference:
        passes.append(Forwards("reference model", times, rows, flops))
    if RECIPES[stage].needs_entropy:
        entropy_pass = cold.entropy_pass
        kept = entropy_pass.refresh_every if entropy_pass.rates == "cached" else 1
        flops = rows * forward_flops(model, length, length)
        passes.append(Forwards("entropy pass", times / kept, rows, flops))
    examples = rows * times * options.devices
    steps = ceil(ceil(options.traces / examples) * cold.epochs)
    return step, passes, examples * length, steps


def _rl(config: RunConfig, options: PlanConfig, model: ModelShape) -> _Work:
    rl, sampler, answer = config.rl, config.sampler, config.sampler.gen_length
    size = rl.micro_batch(options.devices)
    completions = rl.num_prompts * rl.num_generations
    share = completions // options.devices
    parts, rows = share // size, rows_per_pass(rl, size, sampler.most_steps)
    length = options.prompt_length + answer
    sampled = share * length * (2 if sampler.cfg_scale else 1)
    step = Step(
        model,
        ceil(rows),
        length,
        answer,
        size < share,
        options.devices,
        options.sharding,
        entropies=True,
        cached_tokens=sampled if sampler.cache != "none" else 0,
        sampled_logits=share * sampler.block_length,  # guidance keeps one of its two results
        sampled_tokens=sampled,
        # the reference model is the model without the adapter: no copy
        ref_model=rl.kl_coef > 0 and rl.lora.r == 0,
    )
    # a rollout serves num_iterations optimizer steps
    passes = [
        each._replace(number=each.number / rl.num_iterations)
        for each in rollout(model, sampler, share, options.prompt_length)
    ]
    flops = rows * forward_flops(model, length, answer)
    if old := _old_passes(rl):
        passes.append(Forwards("old policy", old * parts, rows, flops))
    if rl.kl_coef:
        passes.append(Forwards("reference model", parts, rows, flops))
    passes.append(Forwards("training", parts * training_passes(model), rows, flops))
    return step, passes, completions * length, rl.max_steps


def _old_passes(rl: RLConfig) -> float:
    """Forward passes for the old policy's log-probabilities, per optimizer step."""
    if rl.loss.top_entropy_share < 1 or rl.loss.kl_cov_share > 0:
        return 1.0
    # in the first step of a rollout, the trained policy is the old policy
    with_ratio = RL_LOSSES[rl.loss_type].has_ratio
    return (1 - 1 / rl.num_iterations) if with_ratio else 0.0
