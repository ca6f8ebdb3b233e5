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
from weft_rl.stages import a2d, cold_start, evaluate, pretrain, rl
from weft_rl.stages.context import ModelFiles, StageContext, model_files, quiet_libraries


class Stage(NamedTuple):
    """check raises UserError for what run would reject; run returns its last checkpoint."""

    check: Callable[[RunConfig, ModelFiles], None]
    run: Callable[[StageContext], Path]


STAGE_RUNNERS: Mapping[str, Stage] = {
    "base": Stage(pretrain.check, pretrain.run),
    "a2d": Stage(a2d.check, a2d.run),
    **dict.fromkeys(RECIPES, Stage(cold_start.check, cold_start.run)),
    "rl": Stage(rl.check, rl.run),
}


def describe(config: RunConfig) -> tuple[list[str], dict[str, int]]:
    """Describe the records of each stage, and return the options of a plan that they determine.

    Raises UserError as check."""
    files, lines, prompts = _files(config), [], []
    counts: dict[str, int] = {}
    if "a2d" in config.in_order:
        first, *more = a2d.describe(config, files)
        lines += [f"a2d: {first}", *more]
    cold_starts = [name for name in config.in_order if name in RECIPES]
    if cold_starts:
        examples, (first, *more) = cold_start.encoded(config, files)
        lines += [f"{', '.join(cold_starts)}: {first}", *more]
        lengths = examples.lengths()
        counts = {"traces": len(lengths), "trace_length": round(sum(lengths) / len(lengths))}
    described = {"rl": rl.describe} if "rl" in config.stages else {}
    if config.eval.after_each or "eval" in config.stages:
        described["eval"] = evaluate.describe
    for name, describe_stage in described.items():
        line, longest = describe_stage(config, files)
        lines.append(f"{name}: {line}")
        prompts.append(longest)
    return lines, counts | ({"prompt_length": max(prompts)} if prompts else {})


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
        adapts = config.in_order[0] == "a2d"
        files = a2d.adapted_files(config, place) if adapts else model_files(place)
        folder = resolve_checkpoint(place, weights=False)
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
