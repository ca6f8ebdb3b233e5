"""Stage name -> what runs it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from stages import base, cold_start, rl
from stages.context import Context
from weft_rl.trainers.objectives import RECIPES

# A body trains from context.start and returns its last checkpoint.
BODIES: Mapping[str, Callable[[Context], Path]] = {
    "base": base.run,
    **dict.fromkeys(RECIPES, cold_start.run),
    "rl": rl.run,
}
