"""The options of `plan` beside a run's own."""

from dataclasses import dataclass
from typing import Literal

from weft_rl.config.fields import Block, option


@dataclass(frozen=True)
class PlanConfig(Block):
    """Options of `plan` beside a run's own, all of which it takes."""

    hardware: Literal["h100", "h200", "a100", "a100_40", "rtx4090", "cpu"] = option(
        "h100", "the device"
    )
    memory_gib: float | None = option(None, "of a device; null: the hardware's", above=0)
    utilisation: float = option(0.4, "share of the hardware's products", above=0, at_most=1)
    devices: int = option(1, "trained on together", at_least=1)
    sharding: Literal["none", "zero2", "zero3", "fsdp2"] = option(
        "none",
        "zero2 spreads optimizer and gradients over the devices, zero3 and fsdp2 weights as well",
    )
    prompt_length: int = option(200, "tokens of a prompt, but in a cold start", at_least=1)
    traces: int = option(1000, "cold-start records; s1K has 1,000", at_least=1)
    trace_length: int | None = option(
        None, "mean tokens of a record, for the time; null: the longest", at_least=1
    )
