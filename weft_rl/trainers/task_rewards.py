"""The one adapter between reward functions over texts and TRL's form over batches."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.extract import answer_text
from weft_rl.errors import UserError
from weft_rl.runs import append_line

Reward = Callable[..., Any]
# Completions written per rollout: enough to read along, small beside the checkpoints.
_SAMPLED = 4


def trl_rewards(functions: Mapping[str, Reward]) -> list[Callable[..., Any]]:
    """The functions in TRL's form, under their names: f(completions, fields, ...) -> N floats.

    completions: N conversations of one assistant message; fields: N dicts, a record's columns. An
    `async def` function is awaited. One that raises, or gives None, NaN or an infinity, earns the
    completion 0 and is counted in the metric reward_failures; it is an error when it fails on a
    whole rollout. The first function also counts the completions that hold an answer."""
    first = next(iter(functions), None)
    return [_in_trl_form(name, function, name == first) for name, function in functions.items()]


def _in_trl_form(name: str, function: Reward, counts_answers: bool) -> Callable[..., Any]:
    def finish(values: list[Any], texts: list[str], log_metric: Callable[..., None] | None) -> Any:
        failures = [value for value in values if not _is_number(value)]
        if values and len(failures) == len(values):
            raise UserError(
                f"reward {name}: failed on all {len(values)} completions, first with "
                f"{failures[0]!r}; look at the function and at the records' fields"
            )
        if failures:
            warnings.warn(
                f"reward {name}: {failures[0]!r} counts as 0, as all that is no finite number",
                stacklevel=2,
            )
        if log_metric is not None:
            log_metric("reward_failures", len(failures) / max(len(values), 1))
            if counts_answers:
                found = sum(answer_text(text) is not None for text in texts)
                log_metric("parsable_share", found / max(len(texts), 1))
        return [float(value) if _is_number(value) else 0.0 for value in values]

    def reward(
        completions: Sequence[Sequence[Mapping[str, str]]],
        fields: Sequence[Mapping[str, Any]],
        log_metric: Callable[..., None] | None = None,
        **_: Any,
    ) -> list[float]:
        texts = [messages[0]["content"] for messages in completions]
        pairs = zip(texts, fields, strict=True)
        return finish([_tried(function, text, record) for text, record in pairs], texts, log_metric)

    async def awaited(
        completions: Sequence[Sequence[Mapping[str, str]]],
        fields: Sequence[Mapping[str, Any]],
        log_metric: Callable[..., None] | None = None,
        **_: Any,
    ) -> list[float]:
        texts = [messages[0]["content"] for messages in completions]
        values: list[Any] = []
        for text, record in zip(texts, fields, strict=True):
            value = _tried(function, text, record)
            try:
                values.append(await value if inspect.isawaitable(value) else value)
            except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                values.append(error)
        return finish(values, texts, log_metric)

    made = awaited if inspect.iscoroutinefunction(function) else reward
    made.__name__ = name  # TRL logs it as rewards/<name>
    return made


def _tried(function: Reward, text: str, record: Mapping[str, Any]) -> Any:
    """What the function gives, or what it raises: a run must not die of one completion."""
    try:
        return function(text, **record)
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        return error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


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
