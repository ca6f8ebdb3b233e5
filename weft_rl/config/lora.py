"""Options of adapters."""

from dataclasses import dataclass, field
from typing import ClassVar

from weft_rl.config.options import Block, about, option


@dataclass(frozen=True)
class LoraConfig(Block):
    """Low-rank adapters."""

    prefix: ClassVar[str] = "lora."

    r: int = option(0, "rank; 0 trains all weights", at_least=0)
    alpha: int = option(16, "scale of the adapter, divided by r", at_least=1)
    dropout: float = option(0.0, "before the adapter", at_least=0, below=1)
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj"],
        metadata=about("names of the adapted modules", at_least=1),
    )
