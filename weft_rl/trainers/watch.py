"""Watching a run: scores on held-out records, and warnings of what its metrics come to."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft_rl.runs import METRICS, append_line


class HeldOut(TrainerCallback):
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
