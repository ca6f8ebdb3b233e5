"""What every training stage does beside its loss: metric lines, progress, stopping on a signal."""

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft_rl.ema import SMOOTHING, time_weighted_ema
from weft_rl.io.log_lines import LogLines, time_left
from weft_rl.io.safe_files import is_number
from weft_rl.io.terminal import Console
from weft_rl.runs.folder import METRICS
from weft_rl.runs.jsonl import append_line, read_lines

# What TRL calls a metric, and what the run folder does.
_RENAMED = {"completions/mean_length": "completion_length", "clip_ratio/region_mean": "clip_ratio"}
_KEPT = (
    *("loss", "grad_norm", "learning_rate", "epoch", "token_entropy", "beta_ref", "mask_fraction"),
    *("reward", "reward_std", "kl", "clip_ratio", "entropy", "completion_length"),
    *("frac_reward_zero_std", "finished_share"),
    *("grad_norm_max", "grad_norm_median", "grad_norm_mean"),
    *("frac_reward_zero_std", "zero_std_groups", "resampled_groups"),
    "skipped_steps",
    *("parsable_share", "reward_failures", "finished_share"),
)


def metric_row(logs: Mapping[str, float]) -> dict[str, float]:
    """The run folder's metrics from a trainer's logs, under the run folder's names."""
    row: dict[str, float] = {}
    for key, value in logs.items():
        name = _RENAMED.get(key, key)
        if name.startswith("rewards/") and name.endswith("/mean"):
            row[name.removesuffix("/mean")] = value
        elif name in _KEPT:
            row[name] = value
    return row


class MetricsWriter(TrainerCallback):
    """Appends the trainer's logs to metrics.jsonl, with the smoothed reward beside the raw one."""

    def __init__(self, run: Path, stage: str) -> None:
        self.path, self.stage, self.start = run / METRICS, stage, time.monotonic()
        self.steps: list[float] = []
        self.rewards: list[float] = []
        for row in read_lines(self.path):
            step, reward = row.get("step"), row.get("reward")
            known = row.get("stage") == stage and is_number(step) and is_number(reward)
            if known and step >= max(self.steps[-1:], default=step):
                self.steps.append(step)
                self.rewards.append(reward)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take a resumed run's own intervals: transformers has those of its checkpoint."""
        state.logging_steps, state.save_steps = int(args.logging_steps), int(args.save_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a line of the last step too, whatever is left for it after the one before."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write one line; the summary after the last step has no loss and is passed over."""
        if not state.is_world_process_zero or logs is None or "loss" not in logs:
            return
        row = metric_row(logs)
        if "reward" in row:
            self.steps.append(state.global_step)
            self.rewards.append(row["reward"])
            ema = time_weighted_ema(self.steps, self.rewards, SMOOTHING)
            row["reward_ema"] = float(ema[-1])
        seconds = round(time.monotonic() - self.start, 3)
        head = {"stage": self.stage, "step": state.global_step, "time_s": seconds}
        append_line(self.path, head | row)


class ProgressLine(TrainerCallback):
    """Stage, step, the last reward or loss, rate, time left: one live line on a terminal, and
    elsewhere a line of a log now and then."""

    def __init__(self, stage: str) -> None:
        self.stage, self.begun_at, self.shown = stage, 0, ""
        self.begun = time.monotonic()
        console = Console()
        self.log = None if console.is_terminal else LogLines(stage)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the bar, already advanced where the run is resumed."""
        self.begun_at, self.begun = state.global_step, time.monotonic()
        if self.log is not None:
            self.log = LogLines(self.stage, state.global_step / state.max_steps)
        self.task = self.progress.add_task(
            self.stage, total=state.max_steps, completed=state.global_step, shown="", rate=""
        )
        if state.is_world_process_zero:
            self.progress.start()
        else:
            self.log = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Advance."""
        self.progress.update(self.task, completed=state.global_step, rate=self._rate(state))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Log the step before, whose loss is known by now."""
        self._log(state)

    def _log(self, state: TrainerState) -> None:
        if self.log is not None and state.global_step > self.begun_at:
            step, last = state.global_step, state.max_steps
            left = time_left(time.monotonic() - self.begun, step - self.begun_at, last - step)
            parts = [f"step {step} of {last}", self.shown, self._rate(state), f"{left} left"]
            self.log.update(step / last, ", ".join(filter(None, parts)))

    def _rate(self, state: TrainerState) -> str:
        elapsed, done = time.monotonic() - self.begun, state.global_step - self.begun_at
        return f"{done / elapsed:.2f} steps/s" if elapsed > 0 else ""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the newest reward, or the loss where there is no reward."""
        for name in ("reward", "loss"):
            if logs is not None and logs.get(name) is not None:
                self.shown = f"{name} {logs[name]:.3f}"
                self.progress.update(self.task, shown=self.shown)
                break

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the finished line on the screen."""
        self._log(state)
        self.progress.stop()


Handler = Callable[[int, FrameType | None], Any] | int | None


class StopOnSignal(TrainerCallback):
    """SIGINT, SIGTERM or SIGUSR1: finish the step, save a checkpoint, stop; a second one ends at
    once. One process that is told suffices: all stop after the same step."""

    def __init__(self) -> None:
        self.stopped = False
        self.before: dict[int, Handler] = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self.restore()

    def restore(self) -> None:
        """Stop listening."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Listen."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self.before[number] = signal.signal(number, self._on_signal)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint and the end of training once a signal has come to any process."""
        if torch.distributed.is_initialized():
            told = torch.tensor(float(self.stopped), device=args.device)
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
            self.stopped = bool(told)
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop listening."""
        self.restore()
