"""What to change where a plan does not fit."""

from collections.abc import Callable
from dataclasses import replace
from math import gcd
from typing import Any

from weft_rl.config.fields import shown
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.plan.config import PlanConfig

_GIB = 2**30


def cures(
    config: RunConfig,
    options: PlanConfig,
    stage: str,
    room: float,
    total: Callable[[RunConfig, PlanConfig], float],
) -> list[str]:
    """What to change, one after the other, until the stage fits `room` bytes; with the totals.

    total: bytes that the stage takes under other options."""
    key = stage if stage in ("base", "rl") else "cold_start"
    lines = [f"{stage} does not fit {room / _GIB:.0f} GiB. One after the other:"]
    least = total(config, options)
    for block, name, value in _changes(config, options, key):
        try:
            changed = _with(config, block, {name: value})
            needed = total(changed, options)
        except UserError:  # does not go with the run's other options
            continue
        if needed >= least:  # nothing is gained by it here
            continue
        # the second stage would start from an adapter on 4-bit weights
        apart = " (a run for each stage)" if value == "nf4" and len(config.trained) > 1 else ""
        lines.append(f"  {block}.{name}={shown(value)}{apart}: {needed / _GIB:.1f} GiB")
        config, least = changed, needed
        if needed <= room:
            return lines
    devices = _devices(config, options, stage)
    sharding = "fsdp2" if options.sharding == "fsdp2" else "zero3"
    options = replace(options, devices=devices, sharding=sharding)
    needed = total(config, options)
    if needed < least:
        lines.append(f"  devices={devices} sharding={sharding}: {needed / _GIB:.1f} GiB")
    return lines


def _devices(config: RunConfig, options: PlanConfig, stage: str) -> int:
    """Eight, or as many as there are; of RL no more than can share its rollout."""
    most, rl = max(options.devices, 8), config.rl
    if stage != "rl":
        return most
    parts = rl.num_prompts * rl.num_generations // (rl.optimizer.micro_batch_size or 1)
    return next(number for number in range(most, 0, -1) if parts % number == 0)


def _changes(config: RunConfig, options: PlanConfig, key: str) -> list[tuple[str, str, Any]]:
    """Block, name and value of what may save memory, cheapest for the result first."""
    if key == "base":  # all weights, in float32
        return [("memory", "gradient_checkpointing", True), ("base", "batch_size", 1)]
    lora = [(f"{key}.lora", "r", 128)] if getattr(config, key).lora.r == 0 else []
    fewer: list[tuple[str, str, Any]] = [("cold_start", "batch_size", 1)]
    if key == "rl":
        share = config.rl.num_prompts * config.rl.num_generations // options.devices
        # a group, which a single row may stand for, before single completions
        sizes = (gcd(config.rl.num_generations, share), 1)
        fewer = [("rl.optimizer", "micro_batch_size", size) for size in sizes]
    return [
        ("memory", "gradient_checkpointing", True),
        *fewer,
        *lora,
        ("memory", "dtype", "bfloat16"),
        *(
            [] if options.hardware == "cpu" else [("memory", "quantization", "nf4")]
        ),  # there is none
    ]


def _with(config: Any, block: str, values: dict[str, Any]) -> Any:
    """The options with other values in one block, like rl.optimizer."""
    if not block:
        return replace(config, **values)
    name, _, rest = block.partition(".")
    return replace(config, **{name: _with(getattr(config, name), rest, values)})
