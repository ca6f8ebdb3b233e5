"""What every stage gets: the run directory, the options and the model that it trains."""

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
from weft_rl.data.rejects import Rejects
from weft_rl.distributed import rank_and_world, resolve_device
from weft_rl.errors import Interrupted, UserError
from weft_rl.io.terminal import Console, one_line
from weft_rl.models.loading import load_model, load_tokenizer, with_lora
from weft_rl.runs.folder import METRICS, checkpoint_path, latest_valid_checkpoint
from weft_rl.runs.jsonl import cut_lines
from weft_rl.seeding import seed_for
from weft_rl.trainers.infra.atomic_checkpoints import find_foreign_file
from weft_rl.trainers.infra.callbacks import MetricsWriter, ProgressLine, StopOnSignal
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING
from weft_rl.trainers.infra.nonfinite_guard import NonFiniteGuard
from weft_rl.trainers.infra.rank_watchdog import RankWatchdog
from weft_rl.trainers.infra.trackers import close_trackers, tracker_arguments

# What `accelerate launch` sets from its configuration file
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
    init_checkpoint: str  # folder or hub id of the model that the stage begins from

    @property
    def device(self) -> torch.device:
        """Where the stage runs."""
        return resolve_device(self.config.device)

    def model(self, place: str | None = None) -> PreTrainedModel:
        """Load the model of a place, or the init checkpoint."""
        nf4 = self.config.memory.weights == "nf4"
        return load_model(place or self.init_checkpoint, self.device, self.dtype, nf4=nf4)

    def adapted(self, model: PreTrainedModel, lora: LoraConfig) -> PreTrainedModel | PeftModel:
        """Add an adapter that the run's seed initializes; the model itself for lora.r = 0."""
        seed = seed_for(self.config.seed, "lora")
        return with_lora(model, lora, self.init_checkpoint, self.scratch / "step", seed)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights; on a CPU bfloat16 is slower than float32, mostly by far."""
        config = self.config
        half = self.device.type == "cuda" and config.adapters_only
        full = {"float32": True, "auto": not half}.get(config.memory.weights, False)
        return torch.float32 if full else torch.bfloat16

    @property
    def autocasts(self) -> bool:
        """Whether training has bfloat16 matmuls whatever the dtype of the weights."""
        auto = self.device.type == "cuda" or os.environ.get(_MIXED_PRECISION) == "bf16"
        return {"bf16": True, "no": False}.get(self.config.memory.mixed_precision, auto)

    @property
    def scratch(self) -> Path:
        """Where checkpoints are written before they are renamed; the stage's own folder."""
        return self.run / "checkpoints" / f".{self.stage}"

    def trainer_arguments(self) -> dict[str, Any]:
        """What a stage's trainer takes beside its method."""
        reliability = self.config.reliability
        return {
            "run": self.run,
            "stage": self.stage,
            "keep": reliability.keep_checkpoints,
            "skip_steps": reliability.skip_steps,
        }


def model_files(place: str) -> ModelFiles:
    """Tokenizer and configuration of a folder or hub id, or of the base model of its adapter; from
    the Hub only small files are fetched."""
    folder = resolve_checkpoint(place, weights=False)
    base = resolve_checkpoint(base_of(str(folder)), weights=False)
    network = AutoConfig.from_pretrained(base, trust_remote_code=False)
    return ModelFiles(load_tokenizer(str(folder)), network)


def print_rejects(title: str, rejects: Rejects) -> None:
    """Print, in the first process, the title and the left-out records; nothing without any."""
    lines = rejects.summary()
    if lines and rank_and_world()[0] == 0:
        Console().print("\n".join([title, *lines]), soft_wrap=True)


def quiet_libraries() -> None:
    """Silence progress bars and messages of other packages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # an adapter names its base relative to its checkpoint; PEFT looks from here, and then saves
    # what it should: vocabularies are never changed
    warnings.filterwarnings("ignore", "Could not find a config file in", module="peft")


def train(trainer: NonFiniteGuard, context: StageContext) -> Path:
    """Run a trainer to its end, from the newest valid checkpoint; returns the last checkpoint.

    Raises Interrupted after a signal, once a checkpoint has been written."""
    trainer.remove_callback(PrinterCallback)
    resumed = _resume_checkpoint(trainer, context)
    step = int(resumed.name.removeprefix("step-")) if resumed else -1
    if trainer.is_world_process_zero():
        shutil.rmtree(context.scratch, ignore_errors=True)  # left by an interrupted save
        trainer.drop_old()  # and by an interrupted removal
        cut_lines(context.run / METRICS, context.stage, step)
        # a rollout has the number of the step before it: the one after the checkpoint is repeated
        completions = context.run / "completions" / f"{context.stage}.jsonl"
        cut_lines(completions, context.stage, step - 1)
    progress, stop = ProgressLine(context.stage), StopOnSignal()
    callbacks: list[TrainerCallback] = [MetricsWriter(context.run, context.stage), progress, stop]
    rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
    watchdog = RankWatchdog(rank, world, context.config.reliability.stall_timeout)
    for callback in [*callbacks, watchdog] if world > 1 else callbacks:
        trainer.add_callback(callback)
    try:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except RuntimeError as error:
        # gloo and nccl name an address at best
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        silent = watchdog.silent() if lost else []
        if not silent:
            raise
        raise Interrupted(f"stage {context.stage}: {'; '.join(silent)}") from error
    finally:  # callbacks are not called after an error
        watchdog.over.set()
        progress.progress.stop()
        stop.restore()
        if trainer.is_world_process_zero():
            shutil.rmtree(context.scratch, ignore_errors=True)
    close_trackers(context.config.trackers)
    step, last = trainer.state.global_step, trainer.state.max_steps
    if stop.stopped and step < last:
        raise Interrupted(f"stopped in stage {context.stage} after step {step} of {last}")
    return checkpoint_path(context.run, context.stage, step)


def _resume_checkpoint(trainer: NonFiniteGuard, context: StageContext) -> Path | None:
    """The checkpoint to resume from, which the first process chooses; None: train from step 0.

    Raises UserError for one of another number of processes."""
    run, stage, now = context.run, context.stage, trainer.accelerator.num_processes

    def find_problem(path: Path) -> str | None:
        return find_foreign_file(run, stage, path) if _processes(path) in (0, now) else None

    chosen: list[Path | None] = [None]
    if trainer.is_world_process_zero():
        chosen = [latest_valid_checkpoint(run, stage, log_line, find_problem)]
    (checkpoint,) = broadcast_object_list(chosen)
    if checkpoint is not None:
        written = _processes(checkpoint)
        if written != now:
            raise UserError(
                f"{checkpoint}: was written by {written} processes, and there are {now}; start as "
                f"many, or a new run with model={checkpoint}"
            )
    return checkpoint


def _processes(checkpoint: Path) -> int:
    """How many processes wrote a checkpoint."""
    return len([*checkpoint.glob("rng_state*.pth")])


def log_line(line: str) -> None:
    """Print a line about a problem that was solved."""
    Console(stderr=True).print(one_line(line), soft_wrap=True)


def leave_together() -> None:
    """Wait for the other processes: one that leaves early breaks their connections.

    Trainers must be out of scope: a DistributedDataParallel that outlives its process group closes
    it while it holds the interpreter's lock, which gloo's thread may be waiting for (torch 2.13).
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()


def common_arguments(context: StageContext, seed: int) -> dict[str, Any]:
    """Training arguments that all stages share."""
    if context.config.memory.mixed_precision == "no":
        # a launcher's file may set it, and transformers takes that for bf16=False
        os.environ[_MIXED_PRECISION] = "no"
    return {
        "output_dir": str(context.scratch),
        "use_cpu": context.device.type == "cpu",
        "seed": seed,
        # of collectives, after the watchdog, which names the stalled process
        "ddp_timeout": int(2 * context.config.reliability.stall_timeout),
        "bf16": context.autocasts,
        ACTIVATION_CHECKPOINTING: context.config.memory.gradient_checkpointing,
        "disable_tqdm": True,
        **tracker_arguments(context.config.trackers, context.run, context.stage),
        "save_strategy": "steps",
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": context.device.type == "cuda",
    }
