"""Options of what a run does about interruptions and accidents; none changes what is learnt."""

from dataclasses import dataclass
from typing import ClassVar

from weft_rl.config.fields import Block, option


@dataclass(frozen=True)
class ReliabilityConfig(Block):
    """Checkpoints kept, steps passed over, how long a process may stand still."""

    prefix: ClassVar[str] = "reliability."

    keep_checkpoints: int | None = option(
        2,
        "newest ones kept of a stage, the second in case the first is damaged; null: all",
        at_least=1,
    )
    stall_timeout: float = option(
        1800.0,
        "seconds without a step after which several processes end, saying who stands where",
        above=0,
    )
    skip_steps: int = option(
        0,
        "steps of a stage with a loss or gradient that is no number passed over; one more stops",
        at_least=0,
    )
