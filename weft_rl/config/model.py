"""Options of the model: dtypes, quantization and adapters."""

from dataclasses import dataclass
from typing import Literal

from weft_rl.config.fields import Block, option


@dataclass(frozen=True)
class MemoryConfig(Block, prefix="memory."):
    """Dtypes, quantization and gradient checkpointing."""

    dtype: Literal["float32", "auto", "bfloat16"] = option(
        "float32",
        "dtype of the base model's weights; auto: bfloat16 on a GPU if all stages train adapters",
    )
    quantization: Literal["none", "nf4"] = option(
        "none", "nf4: 4-bit base weights under an adapter; needs a GPU and bitsandbytes"
    )
    mixed_precision: Literal["auto", "bf16", "no"] = option(
        "auto", "autocast dtype in training; weights and losses keep theirs; auto: bf16 on a GPU"
    )
    gradient_checkpointing: bool = option(
        False, "recompute layers in the backward pass: a third more time, less memory"
    )

    @property
    def weights(self) -> Literal["float32", "auto", "bfloat16", "nf4"]:
        """Storage of the base weights: quantization or dtype."""
        return "nf4" if self.quantization == "nf4" else self.dtype


@dataclass(frozen=True)
class LoraConfig(Block, prefix="cold_start.lora."):
    """LoRA adapters of the cold start."""

    r: int = option(0, "LoRA rank; 0: train all weights", at_least=0)
    alpha: int = option(16, "LoRA alpha: the adapter is scaled by alpha / r", at_least=1)
    dropout: float = option(0.0, "LoRA dropout", at_least=0, below=1)
    targets: list[str] = option(
        ["q_proj", "k_proj", "v_proj"], "names of the modules with adapters", at_least=1
    )


@dataclass(frozen=True)
class RLLoraConfig(LoraConfig, prefix="rl.lora."):
    """LoRA adapters of RL, without dropout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "RL compares log-probabilities of two forward passes; use 0"
        self.require(self.dropout == 0, "dropout", rule)
