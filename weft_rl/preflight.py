"""What can be found wrong with a run before it has a folder, and a stage has taken its hours.

All raise UserError, and nothing is written."""

from pathlib import Path

from weft_rl.adapters import chain
from weft_rl.config.options import require
from weft_rl.config.schema import GENERATED, RunConfig
from weft_rl.data.choice import Rejects, read_traces
from weft_rl.data.records import load_records
from weft_rl.data.tasks import GENERATORS, hub_name, load_task
from weft_rl.errors import UserError
from weft_rl.families.folder import check_weights
from weft_rl.families.registry import PUBLISHED
from weft_rl.plan import network_of
from weft_rl.shares import rank_and_world
from weft_rl.trackers import check_trackers


def check_run(config: RunConfig) -> None:
    """Everything that a run's options name: trackers, model, data, device, adapters."""
    check_trackers(config.trackers)
    start_model(config)
    check_data(config)
    check_four_bits(config)
    check_training(config)


def start_model(config: RunConfig) -> str | None:
    """The folder or hub id that `model=` names; None for one that is pretrained here.

    Raises UserError for a folder that is not there or not whole: before anything is written."""
    if config.model in GENERATED:
        return None
    place = PUBLISHED.get(config.model, config.model)
    folder = Path(place)
    if folder.is_dir():
        check_weights(chain(folder)[0])
    elif place.startswith((".", "/", "~")) or place.count("/") != 1:
        raise UserError(f"model={config.model}: no such folder, and no hub id (owner/name) either")
    return place


def check_data(config: RunConfig) -> None:
    """Read every data file that the run will need. Raises UserError naming file and line.

    A data set of the hub is left to the stage that needs it."""
    load_task(config.task)
    if "rl" in config.stages and config.rl.rollout.data is None and config.task not in GENERATORS:
        raise UserError(
            f"rl.rollout.data=null: task={config.task} has no generated records; name a file"
        )
    if config.data not in GENERATED and any(
        stage not in ("base", "rl", "eval") for stage in config.stages
    ):
        options = config.cold_start.data
        read_traces(config.data, options, Rejects(options.bad_records))
    for data in (config.rl.rollout.data, config.eval.data):
        if data not in (None, "d1") and hub_name(config.task, data) is None:
            load_records(config.task, data)


def check_processes(config: RunConfig) -> None:
    """Raise UserError for a run that several processes cannot share."""
    if rank_and_world()[1] == 1:
        return
    rule = "several processes need one folder; name it"
    require(config.out is not None, "out", config.out, rule)
    rule = "its base is pretrained by one process; run that first, then name a checkpoint's folder"
    require(config.model not in GENERATED, "model", config.model, rule)


def check_four_bits(config: RunConfig) -> None:
    """Raise UserError for a stage that would start from an adapter on 4-bit weights."""
    names = config.trained
    if config.memory.weights == "nf4" and len(names) > 1:
        raise UserError(
            f"memory.weights=nf4: {names[1]} cannot start from an adapter on 4-bit weights; run "
            f"stages=[{names[0]}], merge with weft-rl convert RUN/checkpoints/{names[0]}/step-N "
            f"out=MERGED to=upstream, and go on with model=MERGED stages=[{','.join(names[1:])}]"
        )


def check_training(config: RunConfig) -> None:
    """Raise UserError for a device that is not there, and for adapters of modules that are not."""
    if config.device != "auto":
        from weft_rl.models.loading import resolve_device  # a help text does not wait for torch

        resolve_device(config.device)
    # what a hub id holds is not known before it is fetched
    if config.model in GENERATED or config.model in PUBLISHED or Path(config.model).is_dir():
        for stage in config.trained:
            block = config.rl if stage == "rl" else config.cold_start
            network_of(config, block.lora, half=False)
