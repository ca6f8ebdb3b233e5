"""Shared stage context: run directory, options, model loading and training."""

import gc
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from transformers import (
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
from weft_rl.families import read_config
from weft_rl.io.terminal import Console, one_line
from weft_rl.models.loading import load_model, load_tokenizer, network_config, with_lora
from weft_rl.runs.folder import METRICS, checkpoint_path, latest_valid_checkpoint
from weft_rl.runs.jsonl import cut_lines
from weft_rl.seeding import seed_for
from weft_rl.trainers.infra.atomic_checkpoints import find_foreign_file
from weft_rl.trainers.infra.callbacks import MetricsWriter, ProgressLine, StopOnSignal
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING
from weft_rl.trainers.infra.nonfinite_guard import NonFiniteGuard
from weft_rl.trainers.infra.rank_watchdog import RankWatchdog
from weft_rl.trainers.infra.trackers import close_trackers, tracker_arguments

# Set by `accelerate launch` from its configuration file
_MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"

Shared = TypeVar("Shared")


class ModelFiles(NamedTuple):
    """Tokenizer and configuration of a model, without weights."""

    tokenizer: PreTrainedTokenizerBase
    network: PreTrainedConfig


@dataclass(frozen=True)
class StageContext:
    """Context of a stage."""

    config: RunConfig
    run: Path
    stage: str
    init_checkpoint: str  # folder or Hub id of the initial model

    @property
    def device(self) -> torch.device:
        """Device of the stage."""
        return resolve_device(self.config.device)

    def model(self, place: str | None = None) -> PreTrainedModel:
        """Load the model at a folder or Hub id, or the init checkpoint."""
        nf4 = self.config.memory.weights == "nf4"
        return load_model(place or self.init_checkpoint, self.device, self.dtype, nf4=nf4)

    def adapted(self, model: PreTrainedModel, lora: LoraConfig) -> PreTrainedModel | PeftModel:
        """Add an adapter seeded by the run; return the model unchanged for lora.r = 0."""
        seed = seed_for(self.config.seed, "lora")
        return with_lora(model, lora, self.init_checkpoint, self.scratch / "step", seed)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights; on CPU bfloat16 is usually much slower than float32."""
        config = self.config
        half = self.device.type == "cuda" and config.adapters_only
        full = {"float32": True, "auto": not half}.get(config.memory.weights, False)
        return torch.float32 if full else torch.bfloat16

    @property
    def autocasts(self) -> bool:
        """Whether training uses bfloat16 autocast, whatever the dtype of the weights."""
        auto = self.device.type == "cuda" or os.environ.get(_MIXED_PRECISION) == "bf16"
        return {"bf16": True, "no": False}.get(self.config.memory.mixed_precision, auto)

    @property
    def scratch(self) -> Path:
        """The stage's temporary folder: checkpoints are written here, then renamed."""
        return self.run / "checkpoints" / f".{self.stage}"

    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments of the infrastructure."""
        reliability = self.config.reliability
        return {
            "run": self.run,
            "stage": self.stage,
            "keep": reliability.keep_checkpoints,
            "skip_steps": reliability.skip_steps,
        }


def model_files(place: str, *, adapt: bool = False) -> ModelFiles:
    """Tokenizer and configuration of a folder or Hub id, or of its base model, without weights.

    adapt: of an autoregressive model as stage a2d adapts it."""
    folder = resolve_checkpoint(place, weights=False)
    base = resolve_checkpoint(base_of(str(folder)), weights=False)
    network = network_config(read_config(base, adapt=adapt), base)
    return ModelFiles(load_tokenizer(str(folder), adapt=adapt), network)


def count_tokens(noun: str, lengths: Sequence[int]) -> str:
    """Describe the number of records, their tokens and the longest one."""
    return f"{len(lengths)} {noun}, {sum(lengths)} tokens, the longest has {max(lengths)}"


def print_rejects(title: str, rejects: Rejects) -> None:
    """Print title and skipped records on rank 0, if any."""
    lines = rejects.summary()
    if lines and rank_and_world()[0] == 0:
        Console().print("\n".join([title, *lines]), soft_wrap=True)


def quiet_libraries() -> None:
    """Silence progress bars and messages of other packages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # adapters name their base relative to the checkpoint, where PEFT does not look; what it saves
    # is right, since vocabularies never change
    warnings.filterwarnings("ignore", "Could not find a config file in", module="peft")


def train(trainer: NonFiniteGuard, context: StageContext) -> Path:
    """Run a trainer from the newest valid checkpoint to its end; return the last checkpoint.

    Raises Interrupted after a signal, once a checkpoint is written."""
    trainer.remove_callback(PrinterCallback)
    resumed = _resume_checkpoint(trainer, context)
    step = int(resumed.name.removeprefix("step-")) if resumed else -1
    if trainer.is_world_process_zero():
        shutil.rmtree(context.scratch, ignore_errors=True)  # left by an interrupted save
        trainer.drop_old()  # and by an interrupted removal
        cut_lines(context.run / METRICS, context.stage, step)
        # a rollout has the number of the preceding step: repeat the one after the checkpoint
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
        # gloo and nccl report an address at most
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
    """Checkpoint to resume from, chosen by rank 0; None: train from step 0."""
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


def agreed(context: StageContext, value: Shared) -> Shared:
    """Return rank 0's value in all processes: files of other nodes may differ."""
    values = [value]
    if rank_and_world()[1] > 1:
        timeout = timedelta(seconds=2 * context.config.reliability.stall_timeout)
        PartialState(cpu=context.device.type == "cpu", timeout=timeout)
        broadcast_object_list(values)
    return values[0]


def _processes(checkpoint: Path) -> int:
    return len([*checkpoint.glob("rng_state*.pth")])


def log_line(line: str) -> None:
    """Print a warning on standard error."""
    Console(stderr=True).print(one_line(line), soft_wrap=True)


def leave_together() -> None:
    """Wait for all processes, then close the process group: an early exit breaks connections.

    Trainers must be out of scope. A DistributedDataParallel that outlives its process group closes
    it while holding the GIL, which gloo's thread may be waiting for (torch 2.13)."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()


def common_arguments(context: StageContext, seed: int) -> dict[str, Any]:
    """Training arguments shared by all stages."""
    if context.config.memory.mixed_precision == "no":
        # override the launcher's setting, which transformers prefers to bf16=False
        os.environ[_MIXED_PRECISION] = "no"
    return {
        "output_dir": str(context.scratch),
        "use_cpu": context.device.type == "cpu",
        "seed": seed,
        # for collectives; longer than the watchdog's, which names the stalled process
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
