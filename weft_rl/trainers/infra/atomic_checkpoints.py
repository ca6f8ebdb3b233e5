"""Checkpoints that are complete or absent, for any transformers Trainer."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from weft_rl.errors import Interrupted
from weft_rl.runs.atomic_io import atomic_rename, sync
from weft_rl.runs.checksums import write_checksums
from weft_rl.runs.folder import METRICS, checkpoint_path, checkpoints, newest_checkpoint
from weft_rl.trainers.infra.nonfinite_guard import FiniteSteps
from weft_rl.trainers.space import checkpoint_bytes, lack_of_space

LINE = "metric_line_{rank}.json"


class AtomicCheckpoints(FiniteSteps):
    """Writes each checkpoint into a scratch folder and renames it to checkpoints/<stage>/step-N.

    `args.output_dir` is that scratch folder; run folder and stage are set after building.
    keep: so many newest checkpoints of the stage are kept; None keeps all."""

    keep: int | None = None

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Transformers calls this to save; the folder appears under its final name when whole.

        Raises Interrupted on every process when the disk is too full for it on any: the checkpoint
        before stays."""
        bare = self.accelerator.unwrap_model(model)
        needed = checkpoint_bytes(bare, newest_checkpoint(self.run, self.stage))
        self._require_space(lack_of_space(self.run, needed))
        self._try(partial(super()._save_checkpoint, model, trial), needed)
        self._try(self._publish, needed)

    def _try(self, work: Callable[[], None], needed: int) -> None:
        """Do a part of saving; whatever it ends with, the other processes are not left waiting."""
        lack = None
        try:
            work()
        # tokenizers raises a plain Exception
        except Exception as error:
            lack = lack_of_space(self.run, needed, error)
            if lack is None:
                raise
        self._require_space(lack)

    def _require_space(self, lack: str | None) -> None:
        told = [each for each in gather_object([lack]) if each]
        if told:
            if self.is_world_process_zero():
                shutil.rmtree(str(self.args.output_dir), ignore_errors=True)
            step = self.state.global_step
            raise Interrupted(
                f"stage {self.stage}, checkpoint of step {step}: {told[0]}; make room, the one "
                "before it is whole"
            )

    def _publish(self) -> None:
        """The first process checks what was written in, gives it its name, and tidies up."""
        if not self.is_world_process_zero():
            return
        scratch, step = Path(str(self.args.output_dir)), self.state.global_step
        # what a resumed run keeps of these files must be there when the checkpoint is
        for file in (METRICS, f"completions/{self.stage}.jsonl"):
            if (self.run / file).exists():
                sync(self.run / file)
        whole = scratch / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        write_checksums(whole)
        atomic_rename(whole, checkpoint_path(self.run, self.stage, step))
        shutil.rmtree(scratch, ignore_errors=True)
        self.drop_old()

    def drop_old(self) -> None:
        """Remove the stage's checkpoints before those that are kept."""
        if self.keep is not None:
            for old in checkpoints(self.run, self.stage)[: -self.keep]:
                shutil.rmtree(old)

    def _since_line(self) -> Any:
        """What has been gathered for the next metric line, as JSON takes it."""
        return None

    def _restore_line(self, kept: Any) -> None:
        """Take up what `_since_line` gave."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Transformers saves random states here, on every rank: what has been gathered for the next
        metric line goes along."""
        super()._save_rng_state(output_dir)
        kept = {
            "loss": float(self._tr_loss),
            "since": self._globalstep_last_logged,
            "skipped": self.skipped,
            "metrics": self._since_line(),
        }
        path = Path(output_dir) / LINE.format(rank=self.accelerator.process_index)
        path.write_text(json.dumps(kept), encoding="utf-8")

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Transformers runs one epoch here; it has just begun an empty metric line.

        After the last step there is none to run: transformers would do one too many."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        start = kwargs["resume_from_checkpoint"]
        if start is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            path = Path(start) / LINE.format(rank=self.accelerator.process_index)
            kept = json.loads(path.read_text(encoding="utf-8"))
            self._tr_loss += kept["loss"]
            self._globalstep_last_logged = kept["since"]
            self.skipped = kept["skipped"]
            self._restore_line(kept["metrics"])
        super()._run_epoch(*args, **kwargs)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: TRL writes one beside every checkpoint, outside the renamed folder."""
