"""`plan`: what a run will need, by formula: parameters trained, memory by part, time."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from weft_rl.checkpoints.lora_merge import base_of
from weft_rl.config.fields import leaves, shown
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.model import LoraConfig
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.data.toy.vocabulary import POSITIONS, SMALL_VOCABULARY, SYMBOLS
from weft_rl.errors import UserError
from weft_rl.evaluation.settings import evaluation_settings
from weft_rl.families.base import Family, Sizes
from weft_rl.families.llada import LLADA
from weft_rl.families.registry import FAMILIES, family_of, read_config
from weft_rl.families.shape import ModelShape
from weft_rl.io.terminal import Console
from weft_rl.plan.compute import (
    Forwards,
    base_work,
    cold_start_work,
    evaluation_seconds,
    rl_work,
    rows_of_pass,
    seconds_of,
)
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.memory import HARDWARE, Step
from weft_rl.plan.suggestions import cures

_GIB = 2**30


class Plan(NamedTuple):
    """A stage on one device."""

    stage: str
    trained: int
    total: int
    memory: dict[str, float]  # bytes by part
    forwards: float  # of a device, a step, each of a micro-batch or of a part of the rollout
    tokens: int  # of a step on all devices, trained on
    seconds: float  # a step
    steps: int
    again: float  # seconds a step of rl.rollout.resample, where all groups need all attempts
    evaluation: float | None  # seconds of all its evaluations; None where it is not known of what

    @property
    def hours(self) -> float:
        """Of the whole stage, without `again`."""
        return (self.seconds * self.steps + (self.evaluation or 0.0)) / 3600


def main(argv: Sequence[str]) -> int:
    """Print the plan of the run in the arguments; returns the exit status."""
    own = leaves(PlanConfig)
    mine = [word for word in argv if word.partition("=")[0] in own]
    rest = [word for word in argv if word not in mine]
    about_it = f"{PlanConfig.__doc__} --help lists these; weft-rl run --help lists a run's."
    asks = [word for word in rest if word in ("--help", "-h")]
    options = parse_options(
        PlanConfig, [*mine, *asks], command="weft_rl.plan", description=about_it
    )
    config = load_run_config(rest, command="weft_rl.plan")
    plans = make_plans(config, options)
    if not plans:
        raise UserError(
            f"stages=[{','.join(config.stages)}]: no plans are made of these; name a stage that "
            "trains, like weft or rl"
        )
    room = (options.memory_gib or HARDWARE[options.hardware].memory_gib) * _GIB
    Console().print(_table(plans, room, options))
    if config.in_order[0] == "eval":
        sys.stdout.write("not planned: eval of the model as it is\n")
    for line in _remarks(config, plans):
        sys.stdout.write(f"{line}\n")
    for plan in plans:
        if sum(plan.memory.values()) > room:
            for line in cures_of(config, options, plan.stage, room):
                sys.stdout.write(f"{line}\n")
    return 0


def network_of(config: RunConfig, lora: LoraConfig, half: bool) -> ModelShape:
    """The model of a run with what is trained of it. Raises UserError for one that is unknown."""
    family, sizes = _architecture(config)
    memory = config.memory
    auto = "bfloat16" if half and config.adapters_only else "float32"
    weights = auto if memory.weights == "auto" else memory.weights
    made = ModelShape(family, sizes, lora, weights, memory.gradient_checkpointing, half)
    made.check_targets()
    return made


def _architecture(config: RunConfig) -> tuple[Family, Sizes]:
    base = config.base
    if config.model in TOY_MODELS:
        shape = (base.hidden_size, base.num_hidden_layers, base.num_attention_heads)
        more = (base.num_attention_heads, base.intermediate_size)
        tiny = config.model == "tiny"
        rows, positions = (len(SYMBOLS), POSITIONS) if tiny else (SMALL_VOCABULARY, 0)
        return LLADA, Sizes(rows, *shape, *more, positions)
    place = base_of(config.model)
    for family in FAMILIES:
        if place in {*family.published, *family.published.values()}:
            return family, family.published_sizes
    folder = Path(place)
    content = read_config(folder)
    family, _ = family_of(content, folder)
    return family, family.sizes(content)


def make_plans(config: RunConfig, options: PlanConfig) -> list[Plan]:
    """A plan for each stage that trains, the base of a generated model included."""
    return [make_plan(config, options, stage) for stage in config.in_order if stage != "eval"]


def make_plan(config: RunConfig, options: PlanConfig, stage: str) -> Plan:
    """Memory and time of one stage."""
    half = options.hardware != "cpu"
    if stage == "base":
        options = replace(options, devices=1, sharding="none")  # a run has it of one process
        lora = LoraConfig(0)
    else:
        lora = config.rl.lora if stage == "rl" else config.cold_start.lora
    network = network_of(config, lora, half)
    if stage == "base":
        network = replace(network, weights="float32")
        step = _base_step(config, options, network)
        work = base_work(config, step)
    elif stage == "rl":
        step = _rl_step(config, options, network)
        work = rl_work(config, options, step)
    else:
        step = _cold_start_step(config, options, network)
        work = cold_start_work(config, options, stage, step)
    sampled = [each for each in work.forwards if each.what in ("rollout", "window")]
    return Plan(
        stage,
        network.trained,
        network.count,
        step.memory(),
        sum(each.number for each in work.forwards),
        work.tokens,
        _seconds(work.forwards, network, options),
        work.steps,
        config.rl.rollout.resample * _seconds(sampled, network, options),
        evaluation_seconds(config, options, stage, network),
    )


def _seconds(forwards: list[Forwards], network: ModelShape, options: PlanConfig) -> float:
    return seconds_of(forwards, network, HARDWARE[options.hardware], options.utilisation)


def _base_step(config: RunConfig, options: PlanConfig, network: ModelShape) -> Step:
    canvas = config.sampler.gen_length  # every answer is filled up to it
    return Step(network, config.base.batch_size, options.prompt_length + canvas, canvas)


def _cold_start_step(config: RunConfig, options: PlanConfig, network: ModelShape) -> Step:
    cold, length = config.cold_start, config.cold_start.data.max_length
    return Step(
        network,
        cold.batch_size,
        length,
        length,
        cold.gradient_accumulation_steps > 1,
        options.devices,
        options.sharding,
    )


def _rl_step(config: RunConfig, options: PlanConfig, network: ModelShape) -> Step:
    rl, sampler = config.rl, config.sampler
    size = rl.micro_batch(options.devices)
    share = rl.num_prompts * rl.num_generations // options.devices
    length = options.prompt_length + sampler.gen_length
    # what guidance has twice; of its logits one is left by when a token is chosen
    sampled = share * length * (2 if sampler.cfg_scale else 1)
    return Step(
        network,
        ceil(rows_of_pass(rl, size, sampler.most_steps)),
        length,
        sampler.gen_length,
        size < share,
        options.devices,
        options.sharding,
        entropies=True,
        cached_tokens=sampled if sampler.cache != "none" else 0,
        sampled_logits=share * sampler.block_length,
        sampled_tokens=sampled,
        # with an adapter the reference is the start without it
        reference=rl.kl_coef > 0 and rl.lora.r == 0,
    )


def cures_of(config: RunConfig, options: PlanConfig, stage: str, room: float) -> list[str]:
    """Lines that say what to change until the stage fits `room` bytes."""

    def total(changed: RunConfig, options: PlanConfig) -> float:
        return sum(make_plan(changed, options, stage).memory.values())

    return cures(config, options, stage, room, total)


def _table(plans: Sequence[Plan], room: float, options: PlanConfig) -> Table:
    where = f"{options.devices} x {options.hardware}, {room / _GIB:.0f} GiB each"
    table = Table(title=f"a step on one device ({where})")
    table.add_column("")
    for plan in plans:
        table.add_column(plan.stage, justify="right")

    row = table.add_row
    row("parameters", *(f"{plan.total:,}" for plan in plans))
    row("of them trained", *(f"{plan.trained:,}" for plan in plans))
    for part in plans[0].memory if plans else ():
        row(f"{part}, GiB", *(f"{plan.memory[part] / _GIB:.2f}" for plan in plans))
    totals = [sum(plan.memory.values()) for plan in plans]
    row("memory, GiB", *(f"{total / _GIB:.2f}" for total in totals))
    row("fits", *("yes" if total <= room else "no" for total in totals))
    row("forwards", *(f"{plan.forwards:.1f}" for plan in plans))
    row("seconds a step", *(f"{plan.seconds:.3g}" for plan in plans))
    row("tokens a second", *(f"{plan.tokens / plan.seconds:,.0f}" for plan in plans))
    row("steps", *(f"{plan.steps:,}" for plan in plans))
    row("hours of steps", *(f"{plan.seconds * plan.steps / 3600:.2f}" for plan in plans))
    times = [plan.evaluation for plan in plans]
    evaluated = ["?" if each is None else f"{each / 3600:.2f}" for each in times]
    row("hours of evaluation", *evaluated)
    row("hours in all", *(f"{plan.hours:.2f}" for plan in plans))
    return table


def _remarks(config: RunConfig, plans: Sequence[Plan]) -> list[str]:
    """What the hours do not know."""
    settings, lines = evaluation_settings(config), []
    samplers = [config.sampler] if "rl" in config.trained else []
    samplers += [settings.sampler] if any(plan.evaluation for plan in plans) else []
    for name in ("threshold", "factor"):
        found = {getattr(sampler, name) for sampler in samplers} - {None}
        lines += [
            f"sampler.{name}={value}: counted is a forward for each token, a completion's most"
            for value in found
        ]
    if any(sampler.early_stop for sampler in samplers):
        lines.append("completions that end early (sampler.early_stop) take fewer forwards")
    if any(plan.stage == "base" for plan in plans):
        lines.append("base: counted as trained here; a run takes one that is kept from the cache")
    for plan in plans:
        if plan.again:
            lines.append(
                f"rl.rollout.resample={config.rl.rollout.resample}: not counted; at most "
                f"{plan.again * plan.steps / 3600:.2f} hours more, where all groups need it"
            )
        if plan.evaluation is None:
            lines.append(
                f"evaluation after {plan.stage}: not counted; how many records "
                f"eval.data={shown(settings.data)} has is not known, set eval.num_records"
            )
    return lines
