"""Options of `plan` in addition to those of a run, and hardware data."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from weft_rl.config.fields import Block, option


class Hardware(NamedTuple):
    """A device: memory in GiB, peak dense bfloat16 TFLOP/s, memory bandwidth in TB/s."""

    memory_gib: float
    tera_flops: float
    tera_bytes: float


# Memory as reported by torch, the rest from vendor data sheets. cpu: two server cores.
HARDWARE = {
    "h200": Hardware(139.8, 989, 4.8),
    "h100": Hardware(79.1, 989, 3.35),
    "a100": Hardware(79.1, 312, 2.0),
    "a100_40": Hardware(39.4, 312, 1.555),
    "rtx4090": Hardware(23.6, 165, 1.008),
    "cpu": Hardware(16.0, 0.1, 0.02),
}


@dataclass(frozen=True)
class PlanConfig(Block):
    """Options of `plan` in addition to those of a run."""

    hardware: Literal["h100", "h200", "a100", "a100_40", "rtx4090", "cpu"] = option(
        "h100", "device type"
    )
    memory_gib: float | None = option(None, "memory per device; null: the hardware's", above=0)
    # PaLM (2022), Table 3: large transformers train at 21% to 46% of peak FLOP/s
    utilization: float = option(0.4, "share of the peak FLOP/s that is reached", above=0, at_most=1)
    devices: int = option(1, "number of devices", at_least=1)
    sharding: Literal["none", "zero2", "zero3", "fsdp2"] = option(
        "none", "zero2 shards optimizer state and gradients, zero3 and fsdp2 also weights"
    )
    prompt_length: int = option(200, "tokens per prompt in base, RL and evaluation", at_least=1)
    traces: int = option(1000, "number of cold-start examples; s1K has 1,000", at_least=1)
    trace_length: int | None = option(
        None, "mean tokens per cold-start example, for the time; null: the maximum", at_least=1
    )
