"""Watching a run: scores on held-out records, and warnings of what its metrics come to."""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft_rl.runs.folder import METRICS
from weft_rl.runs.jsonl import append_line


class HeldOutEval(TrainerCallback):
    """Appends held-out scores to metrics.jsonl every few steps; training does not notice.

    score: metrics by name of the model in training; it must draw from generators of its own and
    leave the model's modes as they were. It is called on every process, rank 0 writes."""

    def __init__(
        self, run: Path, stage: str, every: int, score: Callable[[], Mapping[str, float]]
    ) -> None:
        self.path, self.stage, self.every, self.score = run / METRICS, stage, every, score
        self.start = time.monotonic()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Evaluate when it is time."""
        if state.global_step % self.every:
            return
        scores = self.score()
        if state.is_world_process_zero:
            seconds = round(time.monotonic() - self.start, 3)
            head = {"stage": self.stage, "step": state.global_step, "time_s": seconds}
            append_line(self.path, head | {f"held_out/{k}": v for k, v in scores.items()})


# Rollouts that a warning is about: a single one's reward goes up and down by itself.
_ROLLOUTS = 5
_FALLEN, _EQUAL, _NO_CHOICE = 0.5, 0.9, 0.1


class TrainingAlarms(TrainerCallback):
    """Warnings with numbers, on standard error, where a run's metrics say that it goes wrong.

    Of means over five rollouts: a reward below half of its best, nine tenths of the groups without
    a difference in reward, an entropy below a tenth of the first. Each is said once, and again when
    it comes back. A run that is resumed compares with what it has seen since."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.recent: deque[Mapping[str, float]] = deque(maxlen=_ROLLOUTS)
        self.best_reward, self.first_entropy = 0.0, 0.0
        self.told: set[str] = set()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Look at the lines that a rollout has."""
        if not state.is_world_process_zero or logs is None or "reward" not in logs:
            return
        self.recent.append(logs)
        if len(self.recent) < _ROLLOUTS:
            return
        found = self._found()
        for name, words in found.items():
            if name not in self.told:
                sys.stderr.write(f"{self.stage}, step {state.global_step}: {words}\n")
        self.told = {*found}

    def _mean(self, name: str) -> float:
        return sum(row.get(name, 0.0) for row in self.recent) / len(self.recent)

    def _found(self) -> dict[str, str]:
        """What is wrong now, in words, by metric."""
        reward, entropy = self._mean("reward"), self._mean("entropy")
        equal = self._mean("frac_reward_zero_std")
        self.best_reward = max(self.best_reward, reward)
        self.first_entropy = self.first_entropy or entropy
        found = {}
        if reward < _FALLEN * self.best_reward:
            found["reward"] = (
                f"the reward has fallen to {reward:.3g} from {self.best_reward:.3g}; lower "
                "rl.learning_rate or rl.loss.clip_coef, or raise rl.kl_coef"
            )
        if equal >= _EQUAL:
            found["groups"] = (
                f"all rewards are equal in {100 * equal:.0f} % of the groups, which teach nothing; "
                "use rl.rollout.resample, more rl.num_generations or other records"
            )
        if entropy < _NO_CHOICE * self.first_entropy:
            found["entropy"] = (
                f"the entropy has fallen to {entropy:.3g} from {self.first_entropy:.3g}; lower "
                "rl.learning_rate or raise rl.kl_coef"
            )
        return found
