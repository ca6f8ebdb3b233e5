"""`plan`: what a run will need, by formula: parameters trained, memory by part, time."""

import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from weft_rl.budget import (
    HARDWARE,
    Network,
    Step,
    backward_share,
    forward_operations,
    head_operations,
)
from weft_rl.cli import execute
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.options import leaves
from weft_rl.config.plan import PlanConfig
from weft_rl.config.schema import GENERATED, LoraConfig, RunConfig
from weft_rl.cures import cures
from weft_rl.data.symbols import POSITIONS, SMALL_VOCABULARY, SYMBOLS
from weft_rl.errors import UserError
from weft_rl.families.family import Family, Sizes
from weft_rl.families.llada import LLADA
from weft_rl.families.registry import FAMILIES, family_of, read_config

_GIB, _TERA = 2**30, 1e12
# Cold starts whose step has no estimate pass.
WITHOUT_ESTIMATE = ("sft", "dream", "dft", "rho1")


class Plan(NamedTuple):
    """A stage on one device."""

    stage: str
    trained: int
    total: int
    memory: dict[str, float]  # bytes by part
    forwards: float  # of a device, a step, each of a micro-batch or of the rollout
    tokens: int  # of a step on all devices, trained on
    seconds: float  # a step
    steps: int


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
    room = (options.memory_gib or HARDWARE[options.hardware].memory_gib) * _GIB
    Console().print(_table(plans, room, options))
    for plan in plans:
        if sum(plan.memory.values()) > room:
            for line in cures_of(config, options, plan.stage, room):
                sys.stdout.write(f"{line}\n")
    return 0


def network_of(config: RunConfig, lora: LoraConfig, half: bool) -> Network:
    """The model of a run with what is trained of it. Raises UserError for one that is unknown."""
    family, sizes = _architecture(config)
    memory = config.memory
    auto = "bfloat16" if half and config.adapters_only else "float32"
    weights = auto if memory.weights == "auto" else memory.weights
    made = Network(family, sizes, lora, weights, memory.gradient_checkpointing, half)
    if lora.r:
        there = {name for name, _, _ in made.matrices()}
        for target in lora.targets:
            if target not in there:
                raise UserError(
                    f"{lora.prefix}targets: no module is called {target}; there are "
                    + ", ".join(sorted(there))
                )
    return made


def _architecture(config: RunConfig) -> tuple[Family, Sizes]:
    base = config.base
    if config.model in GENERATED:
        shape = (base.hidden_size, base.num_hidden_layers, base.num_attention_heads)
        more = (base.num_attention_heads, base.intermediate_size)
        tiny = config.model == "tiny"
        rows, positions = (len(SYMBOLS), POSITIONS) if tiny else (SMALL_VOCABULARY, 0)
        return LLADA, Sizes(rows, *shape, *more, positions)
    for family in FAMILIES:
        if config.model in {*family.published, *family.published.values()}:
            return family, family.published_sizes
    content = read_config(folder := Path(config.model))
    family, _ = family_of(content, folder)
    return family, family.sizes(content)


def make_plans(config: RunConfig, options: PlanConfig) -> list[Plan]:
    """A plan for each stage that trains."""
    return [make_plan(config, options, stage) for stage in config.trained]


def make_plan(config: RunConfig, options: PlanConfig, stage: str) -> Plan:
    """Memory and time of one stage."""
    half = options.hardware != "cpu"
    block = config.rl if stage == "rl" else config.cold_start
    network = network_of(config, block.lora, half)
    step = (_rl_step if stage == "rl" else _cold_start_step)(config, options, network)
    forwards, operations, reads, tokens, steps = (
        _rl_work(config, options, step)
        if stage == "rl"
        else _cold_start_work(config, options, stage, step)
    )
    device = HARDWARE[options.hardware]
    seconds = max(
        operations / (device.tera_operations * _TERA * options.utilisation),
        # each forward reads all weights once, whatever it computes with them
        reads * network.weight_bytes() / (device.tera_bytes * _TERA),
    )
    return Plan(
        stage, network.trained, network.count, step.memory(), forwards, tokens, seconds, steps
    )


def _cold_start_step(config: RunConfig, options: PlanConfig, network: Network) -> Step:
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


def _rl_step(config: RunConfig, options: PlanConfig, network: Network) -> Step:
    rl, sampler = config.rl, config.sampler
    rows = ceil(rl.num_prompts * rl.num_generations / options.devices)
    size = min(rl.optimizer.micro_batch_size or rows, rows)
    length = options.prompt_length + sampler.gen_length
    return Step(
        network,
        size,
        length,
        sampler.gen_length,
        size < rows,
        options.devices,
        options.sharding,
        entropies=True,
        cached_tokens=rows * length if sampler.cache != "none" else 0,
        sampled_logits=rows * sampler.block_length,
        sampled_tokens=rows * length,
        # with an adapter the reference is the start without it
        reference=rl.kl_coef > 0 and rl.lora.r == 0,
    )


# Forwards of a device, operations, times that all weights are read, tokens on all devices, steps
Work = tuple[float, float, float, int, int]


def _cold_start_work(config: RunConfig, options: PlanConfig, stage: str, step: Step) -> Work:
    cold, network = config.cold_start, step.network
    length = min(options.trace_length or step.length, step.length)
    # a half of the tokens is masked, on average, and has a loss; the estimate is of all of them
    masked = length // 2
    kept = cold.estimate.refresh_every if cold.estimate.rates == "cached" else 1
    estimated = (stage not in WITHOUT_ESTIMATE) / kept
    one = forward_operations(network, length, masked)
    operations = one * (1 + backward_share(network) + (stage == "rho1"))
    operations += head_operations(network, masked) * step.in_parts
    operations += forward_operations(network, length, length) * estimated
    passes = 1 + backward_share(network) + (estimated or stage == "rho1")
    times = cold.gradient_accumulation_steps
    rows = cold.batch_size * times * options.devices
    steps = ceil(ceil(options.traces / rows) * cold.epochs)
    operations *= times * cold.batch_size
    return times * passes, operations, times * passes, rows * length, steps


def _rl_work(config: RunConfig, options: PlanConfig, step: Step) -> Work:
    rl, sampler, network = config.rl, config.sampler, step.network
    rows = ceil(rl.num_prompts * rl.num_generations / options.devices)
    whole = forward_operations(network, step.length, sampler.gen_length) * rows
    denoised = forward_operations(network, step.length, sampler.block_length) * rows
    denoised *= 2 if sampler.cfg_scale else 1
    # a rollout serves mu steps: its denoising, the old log-probabilities and the reference's, mu
    # each; then every step is one pass there and back
    scored = 1 + (rl.kl_coef > 0)
    trained = 1 + backward_share(network)
    forwards = sampler.steps / rl.num_iterations + scored + trained
    operations = denoised * sampler.steps / rl.num_iterations + whole * (scored + trained)
    operations += head_operations(network, sampler.gen_length) * rows * step.in_parts
    parts = ceil(rows / step.rows)
    reads = sampler.steps / rl.num_iterations + parts * (scored + trained)
    tokens = rl.num_prompts * rl.num_generations * step.length
    return forwards, operations, reads, tokens, rl.max_steps


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
    row("hours", *(f"{plan.seconds * plan.steps / 3600:.2f}" for plan in plans))
    return table


if __name__ == "__main__":
    sys.exit(execute("weft_rl.plan", main, sys.argv[1:]))
