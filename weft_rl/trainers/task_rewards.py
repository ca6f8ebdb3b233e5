"""The one adapter between reward functions over texts and TRL's form over batches."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft_rl.runs import append_line

Reward = Callable[..., float]
# Completions written per rollout: enough to read along, small beside the checkpoints.
_SAMPLED = 4


def trl_rewards(functions: Mapping[str, Reward]) -> list[Callable[..., list[float]]]:
    """The functions in TRL's form, under their names: f(completions, fields, ...) -> N floats.

    completions: N conversations of one assistant message; fields: N dicts, a record's columns."""
    return [_in_trl_form(name, function) for name, function in functions.items()]


def _in_trl_form(name: str, function: Reward) -> Callable[..., list[float]]:
    def reward(
        completions: Sequence[Sequence[Mapping[str, str]]],
        fields: Sequence[Mapping[str, Any]],
        **_: Any,
    ) -> list[float]:
        pairs = zip(completions, fields, strict=True)
        return [function(messages[0]["content"], **record) for messages, record in pairs]

    reward.__name__ = name  # TRL logs it as rewards/<name>
    return reward


class CompletionLog:
    """Appends some of each rollout's completions to completions/<stage>.jsonl."""

    def __init__(self, run: Path, stage: str, task: str) -> None:
        self.path, self.stage, self.task = run / "completions" / f"{stage}.jsonl", stage, task

    def __call__(
        self,
        step: int,
        rows: Sequence[Mapping[str, Any]],
        completions: Sequence[Sequence[Mapping[str, str]]],
        rewards: Sequence[float],
    ) -> None:
        """rows: N prompts as given to the trainer; completions, rewards: what became of them."""
        apart = max(len(rows) // _SAMPLED, 1)  # from different prompts: a group's rows are adjacent
        for i in range(0, min(apart * _SAMPLED, len(rows)), apart):
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
