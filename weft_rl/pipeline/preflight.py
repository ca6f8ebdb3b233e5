"""What is wrong with a run, told before its folder is opened and a stage has taken its hours."""

from pathlib import Path

from weft_rl.checkpoints.lora_merge import base_of
from weft_rl.checkpoints.weights_check import check_weights
from weft_rl.config.fields import require
from weft_rl.config.schema import TASKS, TOY_MODELS, RunConfig
from weft_rl.data.own_task import try_task
from weft_rl.data.prompts import task_prompt
from weft_rl.data.records import load_records
from weft_rl.data.rejects import Rejects
from weft_rl.data.tasks import GENERATORS, held_out_records, hub_name, load_task, training_records
from weft_rl.data.trace_selection import read_traces
from weft_rl.errors import UserError
from weft_rl.evaluation.results_store import rank_and_world
from weft_rl.families.registry import PUBLISHED
from weft_rl.plan.command import network_of
from weft_rl.rewards.registry import EVALUATION, training
from weft_rl.trainers.infra.trackers import check_trackers


def check_run(config: RunConfig, *, here: bool = True) -> None:
    """Raise UserError for what a stage of the run would stumble over.

    here: whether it runs on this machine, whose devices count then."""
    check_trackers(config.trackers)
    start_model(config)
    check_data(config)
    check_own_task(config)
    check_rewards(config)
    check_four_bits(config)
    if here:
        check_device(config)
    check_adapters(config)


def start_model(config: RunConfig) -> str | None:
    """The folder or hub id that `model=` names; None for one that is pretrained here.

    Raises UserError for a folder that is not there or not whole: before anything is written."""
    if config.model in TOY_MODELS:
        return None
    place = PUBLISHED.get(config.model, config.model)
    folder = Path(place)
    if folder.is_dir():
        base = base_of(place)
        if Path(base).is_dir():
            check_weights(Path(base))
        elif base.startswith((".", "/", "~")) or base.count("/") != 1:
            raise UserError(f"model={config.model}: is an adapter, and its base {base} is not here")
    elif place.startswith((".", "/", "~")) or place.count("/") != 1:
        raise UserError(f"model={config.model}: no such folder, and no hub id (owner/name) either")
    return place


def check_data(config: RunConfig) -> None:
    """Read every data file that the run will need. Raises UserError naming file and line.

    Held-out and RL records of the hub are left to the stage that needs them."""
    load_task(config.task)
    if "rl" in config.stages and config.rl.rollout.data is None and config.task not in GENERATORS:
        raise UserError(
            f"rl.rollout.data=null: task={config.task} has no generated records; name a file"
        )
    if config.data not in TOY_MODELS and any(
        stage not in ("base", "rl", "eval") for stage in config.stages
    ):
        options = config.cold_start.data
        read_traces(config.data, options, Rejects(options.bad_records))
    for key, block in (("rl.rollout", config.rl.rollout), ("eval", config.eval)):
        if block.data not in (None, "d1") and hub_name(config.task, block.data) is None:
            rejects = Rejects(block.bad_records, f"{key}.bad_records")
            load_records(config.task, block.data, rejects)


def check_own_task(config: RunConfig) -> None:
    """Try a task of one's own on its first records. Raises UserError with the file's line."""
    if not config.task.endswith(".py"):
        return
    firsts, data = [], config.rl.rollout.data
    if "rl" in config.stages and data is None:
        firsts += training_records(config.task, 1, config.seed)[:1]
    elif "rl" in config.stages and data is not None and hub_name(config.task, data) is None:
        rejects = Rejects(config.rl.rollout.bad_records, "rl.rollout.bad_records")
        firsts += load_records(config.task, data, rejects)[:1]
    scored = config.eval.after_each or "eval" in config.stages
    if scored and hub_name(config.task, config.eval.data) is None:
        rejects = Rejects(config.eval.bad_records, "eval.bad_records")
        firsts += held_out_records(config.task, 1, config.eval.data, rejects)
    terms = training(config.task, config.rewards) if "rl" in config.stages else {}
    rewards = {name: term.reward for name, term in terms.items()}
    scores = EVALUATION[config.task] if scored else {}
    for record in firsts:
        prompt = task_prompt(config.prompt_style, config.task, record.fields)
        try_task(config.task, prompt, rewards, scores, record.fields)


def check_rewards(config: RunConfig) -> None:
    """Raise UserError for rewards that the task does not have, and for weights that are not one to
    each of them."""
    if "rl" not in config.stages:
        return
    rule = f"there are none for task={config.task}, which has its own; use rewards=plain"
    require(config.rewards == "plain" or config.task in TASKS, "rewards", config.rewards, rule)
    weights = config.rl.rollout.reward_weights
    terms = training(config.task, config.rewards)
    if weights and len(weights) != len(terms):
        raise UserError(
            f"rl.rollout.reward_weights=[{','.join(map(str, weights))}]: task {config.task} has "
            f"{len(terms)} rewards ({', '.join(terms)}); give one weight to each"
        )


def check_processes(config: RunConfig) -> None:
    """Raise UserError for a run that several processes cannot share."""
    if rank_and_world()[1] == 1:
        return
    rule = "several processes need one folder; name it"
    require(config.out is not None, "out", config.out, rule)


def check_four_bits(config: RunConfig) -> None:
    """Raise UserError for a stage that would start from an adapter on 4-bit weights."""
    names = config.trained
    if config.memory.weights == "nf4" and len(names) > 1:
        raise UserError(
            f"memory.quantization=nf4: {names[1]} cannot start from an adapter on 4-bit weights; "
            f"run stages=[{names[0]}], merge with weft-rl convert RUN/checkpoints/{names[0]}/step-N"
            f" out=MERGED to=upstream, then run model=MERGED stages=[{','.join(names[1:])}]"
        )


def check_device(config: RunConfig) -> None:
    """Raise UserError for a device that is not there, or that 4-bit weights cannot be on."""
    if config.device in ("auto", "cpu") and config.memory.weights != "nf4":
        return
    from weft_rl.models.loading import find_device, four_bits  # a help text does not wait for torch

    device = find_device(config.device)
    if config.memory.weights == "nf4":
        four_bits(device)


def check_adapters(config: RunConfig) -> None:
    """Raise UserError for adapters of modules that the model does not have.

    A model on the hub that is none of the published ones is left to the stage that fetches it."""
    place = start_model(config)
    base = "" if place is None else base_of(place)
    if place is None or base in PUBLISHED.values() or Path(base).is_dir():
        for stage in config.trained:
            block = config.rl if stage == "rl" else config.cold_start
            network_of(config, block.lora, half=False)
