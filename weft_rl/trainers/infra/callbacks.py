"""Callbacks of all training stages: metrics, progress, stopping, evaluation, warnings."""

import signal
import sys
import time
from collections import deque
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
from transformers import TrainerCallback, TrainerState

from weft_rl.ema import SMOOTHING, time_weighted_ema
from weft_rl.io.log_lines import LogLines, time_left
from weft_rl.io.safe_files import is_number
from weft_rl.io.terminal import Console
from weft_rl.runs.folder import METRICS
from weft_rl.runs.jsonl import append_line, read_lines

# TRL's metric name -> ours
_RENAMED = {"completions/mean_length": "completion_length", "clip_ratio/region_mean": "clip_ratio"}
_KEPT = (
    *("loss", "grad_norm", "learning_rate", "epoch", "token_entropy", "beta_ref", "mask_fraction"),
    *("reward", "reward_std", "kl", "clip_ratio", "entropy", "completion_length"),
    *("grad_norm_max", "grad_norm_median", "grad_norm_mean", "skipped_steps"),
    *("frac_reward_zero_std", "zero_std_groups", "resampled_groups"),
    *("parsable_share", "reward_failures", "finished_share"),
)

Score = Callable[[], Mapping[str, float]]
Handler = Callable[[int, FrameType | None], Any] | int | None


def metric_row(logs: Mapping[str, float]) -> dict[str, float]:
    """Select and rename a trainer's logs for metrics.jsonl."""
    row: dict[str, float] = {}
    for key, value in logs.items():
        name = _RENAMED.get(key, key)
        if name.startswith("rewards/") and name.endswith("/mean"):
            row[name.removesuffix("/mean")] = value
        elif name in _KEPT:
            row[name] = value
    return row


class _Lines(TrainerCallback):
    def __init__(self, run: Path, stage: str) -> None:
        self.path, self.stage, self.begin = run / METRICS, stage, time.monotonic()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        seconds = round(time.monotonic() - self.begin, 3)
        append_line(
            self.path, {"stage": self.stage, "step": step, "time_s": seconds} | dict(values)
        )


class MetricsWriter(_Lines):
    """Writes the trainer's logs and the smoothed reward."""

    def __init__(self, run: Path, stage: str) -> None:
        super().__init__(run, stage)
        self.steps: list[float] = []
        self.rewards: list[float] = []
        for row in read_lines(self.path):
            step, reward = row.get("step"), row.get("reward")
            known = row.get("stage") == stage and is_number(step) and is_number(reward)
            if known and step >= max(self.steps[-1:], default=step):
                self.steps.append(step)
                self.rewards.append(reward)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Use the run's intervals: transformers restores those of the checkpoint."""
        state.logging_steps, state.save_steps = int(args.logging_steps), int(args.save_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Log the last step regardless of the interval."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Write one line; skip the final summary, which has no loss."""
        if not state.is_world_process_zero or logs is None or "loss" not in logs:
            return
        row = metric_row(logs)
        if "reward" in row:
            self.steps.append(state.global_step)
            self.rewards.append(row["reward"])
            ema = time_weighted_ema(self.steps, self.rewards, SMOOTHING)
            row["reward_ema"] = float(ema[-1])
        self.write(state.global_step, row)


class HeldOutEval(_Lines):
    """Writes held-out scores every `every` steps, without affecting training.

    score: returns metrics by name; called on every process, uses its own generators and restores
    the model's modes. at_ends: also before the first step and after the last one."""

    def __init__(
        self, run: Path, stage: str, every: int | None, score: Score, *, at_ends: bool = False
    ) -> None:
        super().__init__(run, stage)
        self.every, self.score, self.at_ends = every, score, at_ends

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Evaluate the initial model."""
        if self.at_ends and state.global_step == 0:
            self._evaluate(state, control)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Evaluate every `every` steps."""
        is_due = self.every is not None and state.global_step % self.every == 0
        if is_due or (self.at_ends and state.global_step >= state.max_steps):
            self._evaluate(state, control)

    def _evaluate(self, state: TrainerState, control: Any) -> None:
        is_logged = control.should_log
        scores = self.score()
        control.should_log = is_logged  # a trainer's evaluation may log, which unsets it
        if state.is_world_process_zero:
            self.write(state.global_step, scores)


class ProgressLine(TrainerCallback):
    """Live progress line on a terminal, periodic log lines elsewhere."""

    def __init__(self, stage: str) -> None:
        self.stage, self.first_step, self.shown = stage, 0, ""
        self.begin = time.monotonic()
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

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Show the bar, advanced to the resumed step."""
        self.first_step, self.begin = state.global_step, time.monotonic()
        if self.log is not None:
            self.log = LogLines(self.stage, state.global_step / state.max_steps)
        self.task = self.progress.add_task(
            self.stage, total=state.max_steps, completed=state.global_step, shown="", rate=""
        )
        if state.is_world_process_zero:
            self.progress.start()
        else:
            self.log = None

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Advance the bar."""
        self.progress.update(self.task, completed=state.global_step, rate=self._rate(state))

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Log the previous step, whose loss is now known."""
        self._log(state)

    def _log(self, state: TrainerState) -> None:
        if self.log is not None and state.global_step > self.first_step:
            step, last = state.global_step, state.max_steps
            left = time_left(time.monotonic() - self.begin, step - self.first_step, last - step)
            parts = [f"step {step} of {last}", self.shown, self._rate(state), f"{left} left"]
            self.log.update(step / last, ", ".join(filter(None, parts)))

    def _rate(self, state: TrainerState) -> str:
        elapsed, steps = time.monotonic() - self.begin, state.global_step - self.first_step
        return f"{steps / elapsed:.2f} steps/s" if elapsed > 0 else ""

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Show the latest reward, else the loss."""
        for name in ("reward", "loss"):
            if logs is not None and logs.get(name) is not None:
                self.shown = f"{name} {logs[name]:.3f}"
                self.progress.update(self.task, shown=self.shown)
                break

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Keep the finished line on the screen."""
        self._log(state)
        self.progress.stop()


class StopOnSignal(TrainerCallback):
    """On SIGINT, SIGTERM or SIGUSR1: finish the step, save a checkpoint and stop.

    A signal to one process stops all; a second signal terminates immediately."""

    def __init__(self) -> None:
        self.stopped = False
        self.before: dict[int, Handler] = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self.restore()

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self.before[number] = signal.signal(number, self._on_signal)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Save and stop after a signal to any process."""
        if torch.distributed.is_initialized():
            stopped = torch.tensor(float(self.stopped), device=args.device)
            torch.distributed.all_reduce(stopped, torch.distributed.ReduceOp.MAX)
            self.stopped = bool(stopped)
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Restore the previous handlers."""
        self.restore()


# Rollouts averaged for a warning: single rewards fluctuate.
_ROLLOUTS = 5
_MIN_REWARD_SHARE, _MAX_EQUAL_GROUPS, _MIN_ENTROPY_SHARE = 0.5, 0.9, 0.1


class TrainingAlarms(TrainerCallback):
    """Warns on standard error about degrading metrics.

    Averages over five rollouts: reward below half of its best, equal rewards in 90% of the groups,
    entropy below a tenth of the initial one. Each warning is printed once, and again if it returns.
    A resumed run compares with values since the resume."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.recent: deque[Mapping[str, float]] = deque(maxlen=_ROLLOUTS)
        self.best_reward, self.first_entropy = 0.0, 0.0
        self.active: set[str] = set()

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Check the metrics of a rollout."""
        if not state.is_world_process_zero or logs is None or "reward" not in logs:
            return
        self.recent.append(logs)
        if len(self.recent) < _ROLLOUTS:
            return
        alarms = self._alarms()
        for name, message in alarms.items():
            if name not in self.active:
                sys.stderr.write(f"{self.stage}, step {state.global_step}: {message}\n")
        self.active = {*alarms}

    def _alarms(self) -> dict[str, str]:
        names = ("reward", "entropy", "frac_reward_zero_std")
        reward, entropy, equal = (
            sum(row.get(name, 0.0) for row in self.recent) / len(self.recent) for name in names
        )
        self.best_reward = max(self.best_reward, reward)
        self.first_entropy = self.first_entropy or entropy
        alarms = {}
        if reward < _MIN_REWARD_SHARE * self.best_reward:
            alarms["reward"] = (
                f"the reward has fallen to {reward:.3g} from {self.best_reward:.3g}; lower "
                "rl.learning_rate or rl.loss.clip_coef, or raise rl.kl_coef"
            )
        if equal >= _MAX_EQUAL_GROUPS:
            alarms["groups"] = (
                f"all rewards are equal in {100 * equal:.0f}% of the groups, which have no "
                "gradient; use rl.rollout.resample, more rl.num_generations or other records"
            )
        if entropy < _MIN_ENTROPY_SHARE * self.first_entropy:
            alarms["entropy"] = (
                f"the entropy has fallen to {entropy:.3g} from {self.first_entropy:.3g}; lower "
                "rl.learning_rate or raise rl.kl_coef"
            )
        return alarms
