"""Options of the model: dtypes, quantization and adapters."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from weft_rl.config.fields import Block, about, option, require


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


@dataclass(frozen=True)
class LoraConfig(Block):
    """LoRA adapters of the cold start."""

    prefix: ClassVar[str] = "cold_start.lora."

    r: int = option(0, "LoRA rank; 0: train all weights", at_least=0)
    alpha: int = option(16, "LoRA alpha: the adapter is scaled by alpha / r", at_least=1)
    dropout: float = option(0.0, "LoRA dropout", at_least=0, below=1)
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj"],
        metadata=about("names of the modules with adapters", at_least=1),
    )


@dataclass(frozen=True)
class RLLoraConfig(LoraConfig):
    """LoRA adapters of RL, without dropout."""

    prefix: ClassVar[str] = "rl.lora."

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "RL compares log-probabilities of two forward passes; use 0"
        require(self.dropout == 0, "rl.lora.dropout", self.dropout, rule)
