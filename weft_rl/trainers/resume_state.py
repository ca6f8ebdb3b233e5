"""State that transformers' checkpoints lack, saved and restored with them."""

import json
import warnings
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

_METHOD = "method.json"


class ResumeState(Trainer):
    """Mixin with hooks for a subclass' own state, so that a resumed run goes on as it was."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resume_from: Path | None = None
        self.add_callback(_CheckpointHooks(self))

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train from step 0, from a checkpoint folder, or (True) from the last of output_dir."""
        if resume_from_checkpoint is True:
            last = get_last_checkpoint(str(self.args.output_dir))
            if last is None:
                raise ValueError(f"no checkpoint to resume from in {self.args.output_dir}")
            resume_from_checkpoint = last
        self.resume_from = Path(str(resume_from_checkpoint)) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Stop after the last step: resumed there, transformers would train another one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)

    @property
    def method(self) -> dict[str, Any]:
        """What a resumed run should have as before, by argument."""
        return {"seed": self.args.seed}

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return self.accelerator.process_index

    def on_checkpoint(self, folder: Path) -> None:
        """Complete the checkpoint that transformers has just written; collective."""
        self.save_resume_state(folder)

    def save_resume_state(self, folder: Path) -> None:
        """Write this process' state into a checkpoint folder."""
        if self.rank == 0:
            (folder / _METHOD).write_text(json.dumps(self.method), encoding="utf-8")

    def load_resume_state(self, folder: Path) -> None:
        """Restore this process' state; transformers has restored its own."""
        path = folder / _METHOD
        saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for name, value in self.method.items():
            if name in saved and saved[name] != json.loads(json.dumps(value)):
                text = f"{folder}: {name} was {saved[name]!r}; training continues with {value!r}"
                warnings.warn(text, stacklevel=2)


class _CheckpointHooks(TrainerCallback):
    def __init__(self, trainer: ResumeState) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self.trainer.resume_from is not None:
            self.trainer.load_resume_state(self.trainer.resume_from)

    def on_save(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.trainer.on_checkpoint(Path(str(args.output_dir)) / name)


class SetEpoch(TrainerCallback):
    """Sets `epoch` of collators and samplers."""

    def __init__(self, *targets: Any) -> None:
        self.targets = targets

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Set the current epoch."""
        for target in self.targets:
            target.epoch = int(state.epoch or 0)
