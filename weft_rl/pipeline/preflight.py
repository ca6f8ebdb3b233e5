"""Checks of a run before its directory is created."""

from pathlib import Path

from weft_rl.checkpoints.gguf import without_gguf
from weft_rl.checkpoints.lora_merge import base_of
from weft_rl.checkpoints.safetensors_index import check_weights
from weft_rl.config.schema import GENERATED_DATA, TASKS, TOY_MODELS, RunConfig
from weft_rl.data.rejects import Rejects
from weft_rl.data.sources import read_traces
from weft_rl.data.task_file import try_task
from weft_rl.data.tasks import (
    REGISTRY,
    held_out_records,
    hub_name,
    load_records,
    load_task,
    task_prompt,
    training_records,
)
from weft_rl.distributed import find_device, rank_and_world
from weft_rl.errors import UserError
from weft_rl.families import AUTOREGRESSIVE, PUBLISHED
from weft_rl.plan.estimate import model_shape
from weft_rl.rewards.registry import REWARDS, training
from weft_rl.trainers.infra.trackers import check_trackers


def check_run(config: RunConfig, *, here: bool = True) -> None:
    """Raise UserError for problems of any stage. here: whether this machine's devices are used."""
    check_trackers(config.trackers)
    model_path(config)
    check_data(config)
    check_own_task(config)
    check_rewards(config)
    check_four_bits(config)
    if here and (config.device not in ("auto", "cpu") or config.memory.weights == "nf4"):
        check_device(config)
    check_adapters(config)
    is_shared = rank_and_world()[1] > 1
    fits = not is_shared or config.out is not None
    config.require(fits, "out", "several processes need one run directory; name it")


def model_path(config: RunConfig) -> str | None:
    """Return the model's folder or Hub id, None for a toy model. Raises UserError."""
    if config.model in TOY_MODELS:
        return None
    place = without_gguf(PUBLISHED.get(config.model, config.model))
    if place in AUTOREGRESSIVE:
        return place
    if Path(place).is_dir():
        base = base_of(place)
        if Path(base).is_dir():
            check_weights(Path(base), adapt="a2d" in config.in_order)
        elif not _is_hub_id(base):
            raise UserError(f"model={config.model}: is an adapter, and its base {base} is missing")
    elif not _is_hub_id(place):
        raise UserError(f"model={config.model}: is neither a folder nor a hub id (owner/name)")
    return place


def _is_hub_id(place: str) -> bool:
    return place.count("/") == 1 and not place.startswith((".", "/", "~"))


def check_data(config: RunConfig) -> None:
    """Read all data files except Hub data. Raises UserError naming file and line."""
    load_task(config.task)
    needs_generated = "rl" in config.stages and config.rl.rollout.data is None
    if needs_generated and REGISTRY[config.task].generate is None:
        raise UserError(
            f"rl.rollout.data=null: task={config.task} has no generated records; name a file"
        )
    if config.data not in GENERATED_DATA and set(config.trained) - {"rl"}:
        options = config.cold_start.data
        read_traces(config.data, options, Rejects(options.bad_records))
    for key, block in (("rl.rollout", config.rl.rollout), ("eval", config.eval)):
        if block.data not in (None, "d1") and hub_name(config.task, block.data) is None:
            rejects = Rejects(block.bad_records, f"{key}.bad_records")
            load_records(config.task, block.data, rejects)


def check_own_task(config: RunConfig) -> None:
    """Try a user's task on its first records. Raises UserError with a line of the task file."""
    if not config.task.endswith(".py"):
        return
    firsts, rollout = [], config.rl.rollout
    if "rl" in config.stages and rollout.data is None:
        firsts += training_records(config.task, 1, config.seed)[:1]
    elif "rl" in config.stages and hub_name(config.task, rollout.data) is None:
        rejects = Rejects(rollout.bad_records, "rl.rollout.bad_records")
        firsts += load_records(config.task, str(rollout.data), rejects)[:1]
    is_scored = config.eval.after_each or "eval" in config.stages
    if is_scored and hub_name(config.task, config.eval.data) is None:
        rejects = Rejects(config.eval.bad_records, "eval.bad_records")
        firsts += held_out_records(config.task, 1, config.eval.data, rejects)
    terms = training(config.task, config.rewards) if "rl" in config.stages else {}
    rewards = {name: term.reward for name, term in terms.items()}
    scores = REWARDS[config.task].evaluation if is_scored else {}
    for record in firsts:
        prompt = task_prompt(
            config.prompt_style, config.task, record.fields, config.prompt_template
        )
        try_task(config.task, prompt, rewards, scores, record.fields)


def check_rewards(config: RunConfig) -> None:
    """Raise UserError for rewards that the task lacks, and for a wrong number of weights."""
    if "rl" not in config.stages:
        return
    rule = f"there are none for task={config.task}, which has its own; use rewards=plain"
    config.require(config.rewards == "plain" or config.task in TASKS, "rewards", rule)
    weights, terms = config.rl.rollout.reward_weights, training(config.task, config.rewards)
    rule = f"task={config.task} has {len(terms)} rewards ({', '.join(terms)}); give one weight each"
    config.require(len(weights) in (0, len(terms)), "rl.rollout.reward_weights", rule)


def check_four_bits(config: RunConfig) -> None:
    """Raise UserError for a stage that would start from an adapter on 4-bit weights."""
    first, *later = config.trained or [""]
    if config.memory.weights == "nf4" and later:
        raise UserError(
            f"memory.quantization=nf4: {later[0]} cannot start from an adapter on 4-bit weights; "
            f"run stages=[{first}], merge with weft-rl convert RUN/checkpoints/{first}/step-N"
            f" out=MERGED to=upstream, then run model=MERGED stages=[{','.join(later)}]"
        )


def check_device(config: RunConfig) -> None:
    """Raise UserError for a device that does not exist or does not support 4-bit weights."""
    from weft_rl.models.loading import four_bits  # --help must not import torch

    device = find_device(config.device)
    if config.memory.weights == "nf4":
        four_bits(device)


def check_adapters(config: RunConfig) -> None:
    """Raise UserError for adapter targets that a local or published model lacks."""
    place = model_path(config)
    base = "" if place is None else base_of(place)
    if place is None or base in PUBLISHED.values() or Path(base).is_dir():
        for stage in config.trained:
            block = config.rl if stage == "rl" else config.cold_start
            model_shape(config, block.lora, bf16=False)
