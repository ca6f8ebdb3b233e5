"""Options of adapters."""

from dataclasses import dataclass, field
from typing import ClassVar

from weft_rl.config.fields import Block, about, option, require


@dataclass(frozen=True)
class LoraConfig(Block):
    """Low-rank adapters."""

    prefix: ClassVar[str] = "cold_start.lora."

    r: int = option(0, "rank; 0 trains all weights", at_least=0)
    alpha: int = option(16, "scale of the adapter, divided by r", at_least=1)
    dropout: float = option(0.0, "before the adapter; only of a cold start", at_least=0, below=1)
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj"],
        metadata=about("names of the adapted modules", at_least=1),
    )


@dataclass(frozen=True)
class RLLoraConfig(LoraConfig):
    """Low-rank adapters, without dropout."""

    prefix: ClassVar[str] = "rl.lora."

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "RL has no dropout, as a ratio of two passes would measure it; use 0"
        require(self.dropout == 0, "rl.lora.dropout", self.dropout, rule)
