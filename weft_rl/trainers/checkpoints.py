"""Checkpoints that are complete or absent, for any transformers Trainer."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from weft_rl.runs import checkpoint_path, publish


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

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: TRL writes one beside every checkpoint, outside the renamed folder."""
