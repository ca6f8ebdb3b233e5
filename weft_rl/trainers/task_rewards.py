"""The one adapter between reward functions over texts and TRL's form over batches."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from rewards.extract import answer_text
from weft_rl.errors import UserError
from weft_rl.runs import append_line

Reward = Callable[..., Any]
# Completions written per rollout: enough to read along, small beside the checkpoints.
_SAMPLED = 4
# float32's, in which TRL keeps rewards: a larger one would be an infinity there.
_LARGEST = 3.4028234663852886e38


class TrlReward:
    """A function over texts in TRL's form: called with N completions, it gives N floats.

    completions: N conversations of one assistant message; fields: N dicts, a record's columns. What
    raises, or gives None, NaN, or more than float32 holds, earns the completion 0 and is counted in
    the metric reward_failures. `failures` keeps those of the last call, `calls` how many
    completions it had: `refuse_failing` reads both."""

    def __init__(self, name: str, function: Reward, counts_answers: bool) -> None:
        self.__name__ = name  # TRL logs it as rewards/<name>
        self.function, self.counts_answers = function, counts_answers
        self.failures: list[str] = []
        self.calls = 0

    def __call__(
        self,
        completions: Sequence[Sequence[Mapping[str, str]]],
        fields: Sequence[Mapping[str, Any]],
        log_metric: Callable[..., None] | None = None,
        **_: Any,
    ) -> Any:
        """N floats; from a subclass something that is awaited for them."""
        texts = [messages[0]["content"] for messages in completions]
        pairs = zip(texts, fields, strict=True)
        values = [_tried(self.function, text, record) for text, record in pairs]
        return self.finish(values, texts, log_metric)

    def finish(
        self, values: list[Any], texts: list[str], log_metric: Callable[..., None] | None
    ) -> list[float]:
        """What the function gave as rewards, with what failed counted."""
        self.calls = len(values)
        numbers = [_number(value) for value in values]
        pairs = zip(values, numbers, strict=True)
        self.failures = [_shown(value) for value, number in pairs if number is None]
        if self.failures:
            warnings.warn(
                f"reward {self.__name__}: {self.failures[0]} counts as 0, as all that is no finite "
                "number of 32 bits",
                stacklevel=2,
            )
        if log_metric is not None:
            log_metric("reward_failures", len(self.failures) / max(len(values), 1))
            if self.counts_answers:
                found = sum(answer_text(text) is not None for text in texts)
                log_metric("parsable_share", found / max(len(texts), 1))
        return [0.0 if number is None else number for number in numbers]


class _Awaited(TrlReward):
    """The same of an `async def` function."""

    async def __call__(
        self,
        completions: Sequence[Sequence[Mapping[str, str]]],
        fields: Sequence[Mapping[str, Any]],
        log_metric: Callable[..., None] | None = None,
        **_: Any,
    ) -> list[float]:
        texts = [messages[0]["content"] for messages in completions]
        values: list[Any] = []
        for text, record in zip(texts, fields, strict=True):
            value = _tried(self.function, text, record)
            try:
                values.append(await value if inspect.isawaitable(value) else value)
            except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                values.append(error)
        return self.finish(values, texts, log_metric)


def trl_rewards(functions: Mapping[str, Reward]) -> list[TrlReward]:
    """The functions in TRL's form; the first also counts the completions that hold an answer."""
    first = next(iter(functions), None)
    return [
        (_Awaited if inspect.iscoroutinefunction(function) else TrlReward)(
            name, function, name == first
        )
        for name, function in functions.items()
    ]


def refuse_failing(rewards: Iterable[Any]) -> None:
    """Raise UserError for a function that has just failed on the whole rollout.

    Every process calls it, and all raise or none: a process's own part may fail by chance."""
    for reward in rewards:
        parts = gather_object([(reward.failures[:1], len(reward.failures), reward.calls)])
        calls = sum(part[2] for part in parts)
        if calls and sum(part[1] for part in parts) == calls:
            raise UserError(
                f"reward {reward.__name__}: failed on all {calls} completions, first with "
                f"{parts[0][0][0]}; look at the function and at the records' fields"
            )


def _tried(function: Reward, text: str, record: Mapping[str, Any]) -> Any:
    """What the function gives, or what it raises: a run must not die of one completion."""
    try:
        return function(text, **record)
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        return error


def _number(value: Any) -> float | None:
    """What is a number to Python, numpy or torch, as a float; None for all else, texts included."""
    if isinstance(value, str | bytes | bytearray):
        return None
    try:
        number = float(value)
    except Exception:  # noqa: BLE001 - a user's value may raise anything
        return None
    return number if abs(number) <= _LARGEST else None


def _shown(value: Any) -> str:
    """The start of what Python calls it, on one line."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - ints of over 4300 digits refuse, and a user's value may
        text = f"a value of type {type(value).__name__}"
    return " ".join(text.split())[:200]


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
