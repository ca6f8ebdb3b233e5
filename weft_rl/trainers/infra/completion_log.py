"""Sample of each rollout's completions in completions/<stage>.jsonl."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft_rl.runs.jsonl import append_line

# Completions logged per rollout; small compared with checkpoints.
_NUM_LOGGED = 4


class CompletionLog:
    """Appends a sample of each rollout's completions to completions/<stage>.jsonl."""

    def __init__(self, run: Path, stage: str, task: str) -> None:
        self.path, self.stage, self.task = run / "completions" / f"{stage}.jsonl", stage, task

    def __call__(
        self,
        step: int,
        rows: Sequence[Mapping[str, Any]],
        completions: Sequence[Sequence[Mapping[str, str]]],
        rewards: Sequence[float],
    ) -> None:
        """Append completions and rewards of N dataset rows."""
        stride = max(len(rows) // _NUM_LOGGED, 1)  # different prompts: groups are adjacent
        for i in range(0, min(stride * _NUM_LOGGED, len(rows)), stride):
            append_line(
                self.path,
                {
                    "stage": self.stage,
                    "step": step,
                    "id": rows[i]["id"],
                    "task": self.task,
                    "prompt": rows[i]["prompt"][-1]["content"],
                    "completion": completions[i][0]["content"],
                    "reward": rewards[i],
                    "fields": rows[i]["fields"],
                },
            )
