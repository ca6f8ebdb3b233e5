"""Options of `plan` in addition to those of a run."""

from dataclasses import dataclass
from typing import Literal

from weft_rl.config.fields import Block, option


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
