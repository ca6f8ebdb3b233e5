"""What the stages of a run would refuse, asked of each before the first one begins."""

from collections.abc import Collection
from pathlib import Path

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.errors import UserError
from weft_rl.evaluation.settings import is_evaluated
from weft_rl.families import PUBLISHED
from weft_rl.families.shape import shape_of
from weft_rl.runs.folder import EVAL, read_json
from weft_rl.stages import evaluate
from weft_rl.stages.context import quiet_libraries, surface_of
from weft_rl.stages.pretrain import world_of
from weft_rl.stages.registry import STAGE_RUNNERS


def check(config: RunConfig, finished: Collection[str] = ()) -> None:
    """Raise UserError for what a stage that is not finished would refuse, the evaluation included.

    Each stage has a check, which does what the stage does before its weights are loaded."""
    quiet_libraries()
    if config.model in TOY_MODELS:
        surface = world_of(config)
    else:
        place = PUBLISHED.get(config.model, config.model)
        surface = surface_of(place)
        for name in config.trained:  # adapters of modules that the model does not have
            lora = config.rl.lora if name == "rl" else config.cold_start.lora
            folder = resolve_checkpoint(place, weights=False)
            shape_of(folder, lora).check_targets()
    if surface.tokenizer.chat_template is None:
        raise UserError(
            f"model={config.model}: its tokenizer has no chat template; copy chat_template.jinja "
            "or tokenizer_config.json of the family's instruct model into its folder"
        )
    checked = set()
    for name in config.in_order:
        if name in finished or name == "eval":
            continue
        stage = STAGE_RUNNERS[name]
        # cold starts have their options together
        if stage.check not in checked:
            stage.check(config, surface)
            checked.add(stage.check)
    results = read_json(Path(config.out) / EVAL, {}) if config.out else {}
    trained = [name for name in config.in_order if name != "eval"] or ["base"]
    scored = trained if config.eval.after_each else trained[-1:] * ("eval" in config.stages)
    if not all(is_evaluated(config, results, name) for name in scored):
        evaluate.check(config, surface)
