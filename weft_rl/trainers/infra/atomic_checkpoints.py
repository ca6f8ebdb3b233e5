"""Checkpoints that are complete or absent, and from which a run resumes bit for bit."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from weft_rl.runs.atomic_io import atomic_rename, sync, write_text
from weft_rl.runs.checksums import SUMS, write_checksums
from weft_rl.runs.folder import METRICS, checkpoint_path, checkpoints

METRIC_LINE = "metric_line_{rank}.json"


def _record(run: Path, stage: str) -> dict[str, str]:
    """The run's own record of the files of its checkpoints: step-N/name -> SHA-256."""
    path = run / "checksums" / stage / SUMS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return {line[66:]: line[:64] for line in text.splitlines()}


def _sums(folder: Path) -> dict[str, str]:
    """The checksums in a checkpoint's folder: name -> SHA-256."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {line[66:]: line[:64] for line in lines}


def find_foreign_file(run: Path, stage: str, checkpoint: Path) -> str | None:
    """Describe the first file of a checkpoint that this run has not written; None without one.

    A checkpoint's own checksums show damage. The run's record also shows files that were replaced
    and sealed again, added, or written by another version."""
    found, prefix = _sums(checkpoint), f"{checkpoint.name}/"
    recorded = {
        name.removeprefix(prefix): digest
        for name, digest in _record(run, stage).items()
        if name.startswith(prefix)
    }
    files = {
        str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if not path.is_dir()
    }
    names = {*recorded, *found, *files} - {SUMS}
    foreign = [name for name in sorted(names) if recorded.get(name, "") != found.get(name)]
    return f"{foreign[0]} is not a file of this run" if foreign else None


class ResumableTrainer(Trainer):
    """A mixin that publishes each checkpoint as run/checkpoints/<stage>/step-N once it is complete.

    keep: newest checkpoints of the stage that are kept; None: all. Each checkpoint also holds what
    transformers does not save: the sums of the unfinished metric line, and what subclasses add in
    save_resume_state. Nothing in output_dir but the checkpoint folders is moved or removed."""

    def __init__(
        self, *args: Any, run: Path, stage: str, keep: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.run, self.stage, self.keep = run, stage, keep
        self.resume_from: Path | None = None
        self.add_callback(_Checkpoints(self))

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train from the beginning or from a checkpoint's folder."""
        self.resume_from = Path(str(resume_from_checkpoint)) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """No batches after the last step: resumed there, transformers would train another one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)

    def publish_checkpoint(self) -> None:
        """Complete the checkpoint that transformers has written, and rename it; collective."""
        step = self.state.global_step
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        self.save_resume_state(folder)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            # the lines that a resumed run keeps must be on the disk before the checkpoint is
            for file in (METRICS, f"completions/{self.stage}.jsonl"):
                if (self.run / file).exists():
                    sync(self.run / file)
            write_checksums(folder)
            self._update_record({f"step-{step}/{name}": sum for name, sum in _sums(folder).items()})
            atomic_rename(folder, checkpoint_path(self.run, self.stage, step))
            self.drop_old()
        self.accelerator.wait_for_everyone()

    def drop_old(self) -> None:
        """Remove the stage's checkpoints before those that are kept."""
        if self.keep is not None:
            for old in checkpoints(self.run, self.stage)[: -self.keep]:
                shutil.rmtree(old)
        self._update_record({})

    def _update_record(self, new: dict[str, str]) -> None:
        """Add checksums to the record of the checkpoints that exist."""
        existing = tuple(f"{each.name}/" for each in checkpoints(self.run, self.stage))
        old = _record(self.run, self.stage)
        record = {name: sum for name, sum in old.items() if name.startswith(existing)} | new
        if record != old:
            path = self.run / "checksums" / self.stage / SUMS
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(f"{record[name]}  {name}\n" for name in sorted(record)))

    @property
    def rank(self) -> int:
        """This process."""
        return self.accelerator.process_index

    def metric_sums(self) -> dict[str, list[float]]:
        """Values since the last metric line, by name."""
        return {}

    def restore_metric_sums(self, sums: dict[str, list[float]]) -> None:
        """Restore what `metric_sums` returned."""

    def save_resume_state(self, folder: Path) -> None:
        """Write this process' state into a checkpoint's folder."""
        line = {
            "loss": float(self._tr_loss),
            "since": self._globalstep_last_logged,
            "metrics": self.metric_sums(),
        }
        path = folder / METRIC_LINE.format(rank=self.rank)
        path.write_text(json.dumps(line), encoding="utf-8")

    def load_resume_state(self, folder: Path) -> None:
        """Restore this process' state; transformers has just begun an empty metric line."""
        path = folder / METRIC_LINE.format(rank=self.rank)
        line = json.loads(path.read_text(encoding="utf-8"))
        self._tr_loss += line["loss"]
        self._globalstep_last_logged = line["since"]
        self.restore_metric_sums(line["metrics"])

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: TRL writes one outside of the checkpoint's folder."""


class _Checkpoints(TrainerCallback):
    """Calls the trainer where transformers has saved and where it has loaded a checkpoint."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Restore what transformers does not."""
        if self.trainer.resume_from is not None:
            self.trainer.load_resume_state(self.trainer.resume_from)

    def on_save(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Publish the checkpoint."""
        self.trainer.publish_checkpoint()
