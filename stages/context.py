"""What every stage is handed: the run folder, its configuration and the model to start from."""

import gc
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.checkpoints.lora_merge import base_of
from weft_rl.config.model import LoraConfig
from weft_rl.config.schema import RunConfig
from weft_rl.distributed import resolve_device
from weft_rl.errors import Interrupted, UserError
from weft_rl.io.terminal import Console, one_line
from weft_rl.models.loading import load_model, load_tokenizer, with_lora
from weft_rl.runs.folder import METRICS, checkpoint_path, latest_valid_checkpoint
from weft_rl.runs.jsonl import cut_lines
from weft_rl.seeding import seed_for
from weft_rl.stages.trackers import close_trackers, tracker_arguments
from weft_rl.trainers.infra.atomic_checkpoints import AtomicCheckpoints
from weft_rl.trainers.infra.callbacks import MetricsWriter, ProgressLine, StopOnSignal
from weft_rl.trainers.infra.compat import RECOMPUTE
from weft_rl.trainers.infra.rank_watchdog import RankWatchdog
from weft_rl.trainers.infra.restorable import unusable

# What `accelerate launch` hands on from its file
_MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"


class ModelFiles(NamedTuple):
    """What is known of a model before its weights are loaded."""

    tokenizer: PreTrainedTokenizerBase
    network: PreTrainedConfig


@dataclass(frozen=True)
class StageContext:
    """A stage's surroundings."""

    config: RunConfig
    run: Path
    stage: str
    start: str  # folder or hub id of the model that the stage starts from

    @property
    def device(self) -> torch.device:
        """Where the stage runs."""
        return resolve_device(self.config.device)

    def model(self, place: str | None = None) -> PreTrainedModel:
        """The model of a place, the start if none is named, as `memory` has it."""
        nf4 = self.config.memory.weights == "nf4"
        return load_model(place or self.start, self.device, self.dtype, nf4=nf4)

    def adapted(self, model: PreTrainedModel, lora: LoraConfig) -> PreTrainedModel | PeftModel:
        """The start with a fresh adapter, drawn from the run's seed; as it is for lora.r = 0."""
        seed = seed_for(self.config.seed, "lora")
        return with_lora(model, lora, self.start, self.scratch / "step", seed)

    @property
    def dtype(self) -> torch.dtype:
        """What weights are kept in; on a CPU bfloat16 is slower than float32, mostly by far."""
        config = self.config
        auto = self.device.type == "cuda" and config.adapters_only
        wide = {"float32": True, "auto": not auto}.get(config.memory.weights, False)
        return torch.float32 if wide else torch.bfloat16

    @property
    def autocasts(self) -> bool:
        """Whether a training's products are taken in bfloat16 whatever its weights are kept in."""
        auto = self.device.type == "cuda" or os.environ.get(_MIXED_PRECISION) == "bf16"
        return {"bf16": True, "no": False}.get(self.config.memory.mixed_precision, auto)

    @property
    def scratch(self) -> Path:
        """Where a checkpoint is written before it is renamed to its place."""
        return self.run / "checkpoints" / f".{self.stage}"


def surface_of(place: str) -> ModelFiles:
    """The tokenizer of a folder or hub id and the configuration of its model, or of the one under
    its adapters; of a hub's repository its small files are fetched."""
    folder = resolve_checkpoint(place, weights=False)
    below = resolve_checkpoint(base_of(str(folder)), weights=False)
    network = AutoConfig.from_pretrained(below, trust_remote_code=False)
    return ModelFiles(load_tokenizer(str(folder)), network)


def quiet_libraries() -> None:
    """Leave the terminal to our own lines: no bars for files of kilobytes, no words of other
    packages to themselves about what they will rename or cannot find."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # an adapter names its base relative to its checkpoint; PEFT looks from here, and then saves
    # what it should: vocabularies are never changed
    warnings.filterwarnings("ignore", "Could not find a config file in", module="peft")


def train(trainer: AtomicCheckpoints, context: StageContext) -> Path:
    """Run a prepared trainer to its end, from the newest checkpoint; returns the last checkpoint.

    Raises Interrupted after a signal, once a checkpoint has been written."""
    trainer.run, trainer.stage = context.run, context.stage
    reliability = context.config.reliability
    trainer.keep, trainer.skip_steps = reliability.keep_checkpoints, reliability.skip_steps
    trainer.remove_callback(PrinterCallback)
    start = _start(trainer, context)
    done = int(start.name.removeprefix("step-")) if start else -1
    if trainer.is_world_process_zero():
        shutil.rmtree(context.scratch, ignore_errors=True)  # what an interrupted writing left
        trainer.drop_old()  # and an interrupted removing
        cut_lines(context.run / METRICS, context.stage, done)
        # a rollout bears the step that it comes after: the one after the checkpoint is made again
        completions = context.run / "completions" / f"{context.stage}.jsonl"
        cut_lines(completions, context.stage, done - 1)
    line, stop = ProgressLine(context.stage), StopOnSignal()
    callbacks: list[TrainerCallback] = [MetricsWriter(context.run, context.stage), line, stop]
    for callback in callbacks:
        trainer.add_callback(callback)
    rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
    beat = RankWatchdog(rank, world, reliability.stall_timeout)
    if world > 1:
        trainer.add_callback(beat)
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    except RuntimeError as error:
        # gloo's and nccl's name an address at best
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        silent = beat.silent() if lost else []
        if not silent:
            raise
        raise Interrupted(f"stage {context.stage}: {'; '.join(silent)}") from error
    finally:  # where training ends with an error nobody tells the callbacks
        beat.over.set()
        line.progress.stop()
        stop.restore()
    close_trackers(context.config.trackers)
    step = trainer.state.global_step
    if stop.stopped and step < trainer.state.max_steps:
        raise Interrupted(
            f"stopped in stage {context.stage} after step {step} of {trainer.state.max_steps}"
        )
    return checkpoint_path(context.run, context.stage, step)


def _start(trainer: AtomicCheckpoints, context: StageContext) -> Path | None:
    """The checkpoint to go on from, which the first process looks for; None: from the beginning.

    Raises UserError for one of another number of processes."""
    found: list[Path | None] = [None]
    if trainer.is_world_process_zero():
        found = [
            latest_valid_checkpoint(
                context.run, context.stage, log_line, lambda path: unusable(trainer, path)
            )
        ]
    (start,) = broadcast_object_list(found)
    if start is not None:
        processes, now = len([*start.glob("rng_state*.pth")]), trainer.accelerator.num_processes
        if processes != now:
            raise UserError(
                f"{start}: was written by {processes} processes, and there are {now}; start as "
                f"many, or a new run with model={start}"
            )
    return start


def log_line(line: str) -> None:
    """A line about something that went wrong and was seen to."""
    Console(stderr=True).print(one_line(line), soft_wrap=True)


def leave_together() -> None:
    """Wait for the other processes: one that leaves early breaks off their connections.

    Trainers must be out of scope: a DistributedDataParallel that outlives its process group closes
    it while it holds the interpreter's lock, which gloo's thread may be waiting for (torch 2.13).
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()


def common_arguments(context: StageContext, seed: int) -> dict[str, Any]:
    """Arguments that every stage's trainer shares."""
    if context.config.memory.mixed_precision == "no":
        # a launcher's file has a word of its own, which transformers takes for bf16=False
        os.environ[_MIXED_PRECISION] = "no"
    return {
        "output_dir": str(context.scratch),
        "use_cpu": context.device.type == "cpu",
        "seed": seed,
        # that of collectives, after the one that names who stands still
        "ddp_timeout": int(2 * context.config.reliability.stall_timeout),
        "bf16": context.autocasts,
        RECOMPUTE: context.config.memory.gradient_checkpointing,
        "disable_tqdm": True,
        **tracker_arguments(context.config.trackers, context.run, context.stage),
        "save_strategy": "steps",
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": context.device.type == "cuda",
    }
