"""What to change where a plan does not fit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from weft_rl.config.plan import PlanConfig
from weft_rl.config.schema import RunConfig

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
    key = "rl" if stage == "rl" else "cold_start"
    lines = [f"{stage} does not fit {room / _GIB:.0f} GiB. One after the other:"]
    least = total(config, options)
    for text, changed in _changes(config, key):
        needed = total(changed, options)
        if needed >= least:  # nothing is gained by it here
            continue
        lines.append(f"  {text}: {needed / _GIB:.1f} GiB")
        config, least = changed, needed
        if needed <= room:
            return lines
    options = replace(options, devices=max(options.devices, 8), sharding="zero3")
    needed = total(config, options)
    return [*lines, f"  devices={options.devices} sharding=zero3: {needed / _GIB:.1f} GiB"]


def _changes(config: RunConfig, key: str) -> list[tuple[str, RunConfig]]:
    """The changes that save memory, each on top of those before, cheapest for the result first."""
    made = []

    def change(text: str, changed: RunConfig) -> None:
        nonlocal config
        if changed != config:
            config = changed
            made.append((text, changed))

    def block(**values: Any) -> RunConfig:
        return replace(config, **{key: replace(getattr(config, key), **values)})

    memory = config.memory
    change(
        "memory.gradient_checkpointing=true",
        replace(config, memory=replace(memory, gradient_checkpointing=True)),
    )
    if key == "cold_start":
        change("cold_start.batch_size=1", block(batch_size=1))
    else:
        size = config.rl.num_generations
        fewer = replace(config.rl.optimizer, micro_batch_size=size)
        change(f"rl.optimizer.micro_batch_size={size}", block(optimizer=fewer))
    if getattr(config, key).lora.r == 0:
        change(f"{key}.lora.r=128", block(lora=replace(getattr(config, key).lora, r=128)))
    for weights in ("bfloat16", "nf4"):
        if memory.weights != "nf4":
            kept = replace(config.memory, weights=weights)
            change(f"memory.weights={weights}", replace(config, memory=kept))
    return made
