"""Checkpoints that are complete or absent, for any transformers Trainer."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from weft_rl.runs import checkpoint_path, publish

_LINE = "metric_line_{rank}.json"


class AtomicCheckpoints(Trainer):
    """Writes each checkpoint into a scratch folder and renames it to checkpoints/<stage>/step-N.

    `args.output_dir` is that scratch folder; run folder and stage are set after building."""

    run: Path
    stage: str

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Transformers calls this to save; the folder appears under its final name when whole."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            scratch = Path(str(self.args.output_dir))
            step = self.state.global_step
            final = checkpoint_path(self.run, self.stage, step)
            final.parent.mkdir(parents=True, exist_ok=True)
            publish(scratch / f"{PREFIX_CHECKPOINT_DIR}-{step}", final)
            shutil.rmtree(scratch, ignore_errors=True)
        self.accelerator.wait_for_everyone()

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
            "metrics": self._since_line(),
        }
        path = Path(output_dir) / _LINE.format(rank=self.accelerator.process_index)
        path.write_text(json.dumps(kept), encoding="utf-8")

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Transformers runs one epoch here; it has just begun an empty metric line.

        After the last step there is none to run: transformers would do one too many."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        start = kwargs["resume_from_checkpoint"]
        if start is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            path = Path(start) / _LINE.format(rank=self.accelerator.process_index)
            kept = json.loads(path.read_text(encoding="utf-8"))
            self._tr_loss += kept["loss"]
            self._globalstep_last_logged = kept["since"]
            self._restore_line(kept["metrics"])
        super()._run_epoch(*args, **kwargs)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: TRL writes one beside every checkpoint, outside the renamed folder."""
