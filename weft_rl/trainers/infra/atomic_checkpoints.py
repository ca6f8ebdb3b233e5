"""Atomic checkpoints with bit-for-bit resume."""

import json
import shutil
from pathlib import Path
from typing import Any

from weft_rl.runs.atomic_io import atomic_rename, sync, write_text
from weft_rl.runs.checksums import SUMS, write_checksums
from weft_rl.runs.folder import METRICS, checkpoint_path, checkpoints
from weft_rl.trainers.resume_state import ResumeState

METRIC_LINE = "metric_line_{rank}.json"


def _record(run: Path, stage: str) -> dict[str, str]:
    path = run / "checksums" / stage / SUMS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return {line[66:]: line[:64] for line in text.splitlines()}


def _sums(folder: Path) -> dict[str, str]:
    """Checksums of a checkpoint: name -> SHA-256."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {line[66:]: line[:64] for line in lines}


def find_foreign_file(run: Path, stage: str, checkpoint: Path) -> str | None:
    """Describe the first file of a checkpoint that this run did not write; None if there is none.

    A checkpoint's checksums detect damage. The run's record also detects files that were added,
    replaced together with their checksums, or written by another version."""
    saved, prefix = _sums(checkpoint), f"{checkpoint.name}/"
    recorded = {
        name.removeprefix(prefix): digest
        for name, digest in _record(run, stage).items()
        if name.startswith(prefix)
    }
    files = {
        str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if not path.is_dir()
    }
    names = {*recorded, *saved, *files} - {SUMS}
    foreign = [name for name in sorted(names) if recorded.get(name, "") != saved.get(name)]
    return f"{foreign[0]} is not a file of this run" if foreign else None


class ResumableTrainer(ResumeState):
    """Mixin that atomically publishes checkpoints as run/checkpoints/<stage>/step-N.

    keep: number of newest checkpoints kept per stage; None: all. Adds the state that transformers
    does not save: sums of the unfinished metric line, and additions of save_resume_state. Only
    checkpoint folders in output_dir are moved or removed."""

    def __init__(
        self, *args: Any, run: Path, stage: str, keep: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.run, self.stage, self.keep = run, stage, keep

    def on_checkpoint(self, folder: Path) -> None:
        """Complete and rename the checkpoint that transformers wrote; collective."""
        step = self.state.global_step
        self.save_resume_state(folder)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            # lines that a resumed run keeps must be on disk before the checkpoint
            for file in (METRICS, f"completions/{self.stage}.jsonl"):
                if (self.run / file).exists():
                    sync(self.run / file)
            write_checksums(folder)
            self._update_record({f"step-{step}/{name}": sum for name, sum in _sums(folder).items()})
            atomic_rename(folder, checkpoint_path(self.run, self.stage, step))
            self.drop_old()
        self.accelerator.wait_for_everyone()

    def drop_old(self) -> None:
        """Remove the stage's oldest checkpoints beyond `keep`."""
        if self.keep is not None:
            for old in checkpoints(self.run, self.stage)[: -self.keep]:
                shutil.rmtree(old)
        self._update_record({})

    def _update_record(self, new: dict[str, str]) -> None:
        existing = tuple(f"{each.name}/" for each in checkpoints(self.run, self.stage))
        old = _record(self.run, self.stage)
        record = {name: sum for name, sum in old.items() if name.startswith(existing)} | new
        if record != old:
            path = self.run / "checksums" / self.stage / SUMS
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(f"{record[name]}  {name}\n" for name in sorted(record)))

    def metric_sums(self) -> dict[str, list[float]]:
        """Values since the last metric line, by name."""
        return {}

    def restore_metric_sums(self, sums: dict[str, list[float]]) -> None:
        """Restore the values of `metric_sums`."""

    def save_resume_state(self, folder: Path) -> None:
        """Add the unfinished metric line."""
        super().save_resume_state(folder)
        line = {
            "loss": float(self._tr_loss),
            "since": self._globalstep_last_logged,
            "metrics": self.metric_sums(),
        }
        path = folder / METRIC_LINE.format(rank=self.rank)
        path.write_text(json.dumps(line), encoding="utf-8")

    def load_resume_state(self, folder: Path) -> None:
        """Restore the metric line, which transformers has just reset."""
        super().load_resume_state(folder)
        path = folder / METRIC_LINE.format(rank=self.rank)
        line = json.loads(path.read_text(encoding="utf-8"))
        self._tr_loss += line["loss"]
        self._globalstep_last_logged = line["since"]
        self.restore_metric_sums(line["metrics"])

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card: TRL would write it outside the checkpoint folder."""
