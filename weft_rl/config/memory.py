"""Options of what a run keeps in memory."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from weft_rl.config.fields import Block, option


@dataclass(frozen=True)
class MemoryConfig(Block):
    """What the weights are kept in, and what is computed twice to keep less."""

    prefix: ClassVar[str] = "memory."

    weights: Literal["float32", "auto", "bfloat16", "nf4"] = option(
        "float32",
        "of the start, frozen under an adapter; auto: bfloat16 on a GPU where all stages have one; "
        "nf4 needs a GPU and bitsandbytes",
    )
    mixed_precision: Literal["auto", "bf16", "no"] = option(
        "auto",
        "products of a training's passes, its weights and losses stay as they are; auto: bf16 on a "
        "GPU; faster for larger models on a CPU that multiplies bf16 as well",
    )
    gradient_checkpointing: bool = option(
        False, "layers are computed again on the way back: a third more time, less memory"
    )
