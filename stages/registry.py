"""Stage name -> what checks and runs it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from weft_rl.config.schema import RunConfig
from weft_rl.stages import cold_start, rl
from weft_rl.stages import pretrain as base
from weft_rl.stages.context import ModelFiles, StageContext
from weft_rl.trainers.recipes import RECIPES


class Stage(NamedTuple):
    """check raises UserError for what run would refuse once earlier stages have taken their time;
    run trains from context.start and returns its last checkpoint."""

    check: Callable[[RunConfig, ModelFiles], None]
    run: Callable[[StageContext], Path]


STAGE_RUNNERS: Mapping[str, Stage] = {
    "base": Stage(base.check, base.run),
    **dict.fromkeys(RECIPES, Stage(cold_start.check, cold_start.run)),
    "rl": Stage(rl.check, rl.run),
}
