"""Pipeline stages, one module each, and the checks before the first one."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.checkpoints.lora_merge import base_of
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.errors import UserError
from weft_rl.evaluation.settings import is_evaluated
from weft_rl.families import PUBLISHED
from weft_rl.families.shape import shape_of
from weft_rl.runs.folder import EVAL, read_json
from weft_rl.stages import cold_start, evaluate, pretrain, rl
from weft_rl.stages.context import ModelFiles, StageContext, model_files, quiet_libraries


class Stage(NamedTuple):
    """check raises UserError for what run would reject; run returns its last checkpoint."""

    check: Callable[[RunConfig, ModelFiles], None]
    run: Callable[[StageContext], Path]


STAGE_RUNNERS: Mapping[str, Stage] = {
    "base": Stage(pretrain.check, pretrain.run),
    **dict.fromkeys(RECIPES, Stage(cold_start.check, cold_start.run)),
    "rl": Stage(rl.check, rl.run),
}


def describe(config: RunConfig) -> list[str]:
    """Describe the records of each stage, a line each. Raises UserError as check."""
    files, lines = _files(config), []
    for name in config.in_order:
        if name in RECIPES:
            first, *more = cold_start.encoded(config, files)[1]
            lines += [f"{name}: {first}", *more]
        elif name == "rl":
            lines.append(f"rl: {rl.describe(config, files)}")
    return lines


def check(config: RunConfig, finished: Collection[str] = ()) -> None:
    """Raise UserError for what an unfinished stage or evaluation would reject."""
    files = _files(config)
    unfinished = [name for name in config.in_order if name not in finished and name != "eval"]
    # cold starts share their check
    for stage_check in dict.fromkeys(STAGE_RUNNERS[name].check for name in unfinished):
        stage_check(config, files)
    results = read_json(Path(config.out) / EVAL, {}) if config.out else {}
    trained = [name for name in config.in_order if name != "eval"] or ["base"]
    scored = trained if config.eval.after_each else trained[-1:] * ("eval" in config.stages)
    if not all(is_evaluated(config, results, name) for name in scored):
        evaluate.check(config, files)


def _files(config: RunConfig) -> ModelFiles:
    quiet_libraries()
    if config.model in TOY_MODELS:
        files = pretrain.toy_files(config)
    else:
        place = PUBLISHED.get(config.model, config.model)
        files, folder = model_files(place), resolve_checkpoint(place, weights=False)
        base = resolve_checkpoint(base_of(str(folder)), weights=False)
        for name in config.trained:  # reject adapter targets that the model lacks
            lora = config.rl.lora if name == "rl" else config.cold_start.lora
            shape_of(base, lora).check_targets()
    if files.tokenizer.chat_template is None:
        raise UserError(
            f"model={config.model}: its tokenizer has no chat template; copy chat_template.jinja "
            "or tokenizer_config.json of the family's instruct model into its folder"
        )
    return files
