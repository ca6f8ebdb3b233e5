"""Options of what a run keeps in memory."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from weft_rl.config.fields import Block, option


@dataclass(frozen=True)
class MemoryConfig(Block):
    """Dtypes, quantization and gradient checkpointing."""

    prefix: ClassVar[str] = "memory."

    dtype: Literal["float32", "auto", "bfloat16"] = option(
        "float32",
        "dtype of the base model's weights; auto: bfloat16 on a GPU if all stages train adapters",
    )
    quantization: Literal["none", "nf4"] = option(
        "none", "nf4: 4-bit base weights under an adapter; needs a GPU and bitsandbytes"
    )
    mixed_precision: Literal["auto", "bf16", "no"] = option(
        "auto",
        "autocast dtype in training; weights and losses keep theirs; auto: bf16 on a GPU",
    )
    gradient_checkpointing: bool = option(
        False, "recompute layers in the backward pass: a third more time, less memory"
    )

    @property
    def weights(self) -> Literal["float32", "auto", "bfloat16", "nf4"]:
        """How the base weights are stored: quantized, or in a dtype."""
        return "nf4" if self.quantization == "nf4" else self.dtype

    @property
    def weights_key(self) -> str:
        """The option that decides how the base weights are stored."""
        return "memory.quantization" if self.quantization == "nf4" else "memory.dtype"
