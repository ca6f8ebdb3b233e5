"""Options that make a stage fit a device's memory."""

from dataclasses import asdict, replace
from math import gcd
from typing import Any, NamedTuple

from weft_rl.config.fields import build, shown
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plan
from weft_rl.runs.renamed import flattened


class Suggestion(NamedTuple):
    """A change of options, in addition to the previous ones."""

    text: str  # key=value
    memory: float  # bytes of the stage
    of_run: bool = True  # False: options of the launcher, not of the run


def suggest(config: RunConfig, options: PlanConfig, stage: str, room: float) -> list[Suggestion]:
    """Return useful option changes, least harmful first, until the stage fits `room` bytes."""
    suggestions: list[Suggestion] = []
    least = make_plan(config, options, stage).total_memory
    for key, value in _changes(config, options, stage):
        try:
            changed = build(RunConfig, dict(flattened(asdict(config))) | {key: value})
            needed = make_plan(changed, options, stage).total_memory
        except UserError:
            continue
        if needed < least:
            # the next stage cannot start from an adapter on 4-bit weights
            apart = value == "nf4" and len(config.trained) > 1
            text = f"{key}={shown(value)}{' (one run per stage)' if apart else ''}"
            suggestions.append(Suggestion(text, needed))
            config, least = changed, needed
        if least <= room:
            return suggestions
    sharding = "fsdp2" if options.sharding == "fsdp2" else "zero3"
    options = replace(options, devices=_devices(config, options, stage), sharding=sharding)
    needed = make_plan(config, options, stage).total_memory
    if needed < least:
        text = f"devices={options.devices} sharding={sharding}"
        suggestions.append(Suggestion(text, needed, of_run=False))
    return suggestions


def _changes(config: RunConfig, options: PlanConfig, stage: str) -> list[tuple[str, Any]]:
    checkpointing = ("memory.gradient_checkpointing", True)
    if stage == "base":  # trains all weights in float32
        return [checkpointing, ("base.batch_size", 1)]
    if stage == "a2d":
        return [checkpointing, ("a2d.batch_size", 1)]
    block = "rl" if stage == "rl" else "cold_start"
    fewer: list[tuple[str, Any]] = [("cold_start.batch_size", 1)]
    if stage == "rl":
        share = config.rl.num_prompts * config.rl.num_generations // options.devices
        # try group size first: a group can share one row
        sizes = (gcd(config.rl.num_generations, share), 1)
        fewer = [("rl.optimizer.micro_batch_size", size) for size in sizes]
    adapters = [(f"{block}.lora.r", 128)] if getattr(config, block).lora.r == 0 else []
    narrower: list[tuple[str, Any]] = [("memory.dtype", "bfloat16"), ("memory.quantization", "nf4")]
    # nf4 needs a GPU
    return [checkpointing, *fewer, *adapters, *narrower[: 1 if options.hardware == "cpu" else 2]]


def _devices(config: RunConfig, options: PlanConfig, stage: str) -> int:
    """Return eight devices or the larger given number; in RL, one that can share a rollout."""
    most, rl = max(options.devices, 8), config.rl
    if stage != "rl":
        return most
    parts = rl.num_prompts * rl.num_generations // (rl.optimizer.micro_batch_size or 1)
    return next(number for number in range(most, 0, -1) if parts % number == 0)
