"""The one adapter between reward functions over texts and TRL's form over batches."""

import inspect
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from weft_rl.errors import UserError
from weft_rl.evaluation.scores import ROUNDING, as_number, shown
from weft_rl.rewards.extract import answer_text
from weft_rl.rewards.math500 import judge_ahead, judging
from weft_rl.rewards.registry import COMPARING
from weft_rl.runs.jsonl import append_line

Reward = Callable[..., Any]
# Completions written per rollout: enough to read along, small beside the checkpoints.
_SAMPLED = 4
# float32's, in which TRL keeps rewards: a larger one would be an infinity there.
_LARGEST = 3.4028234663852886e38
# Of what a function gives, in a message.
_QUOTED = 200


class TrlReward:
    """A function over texts in TRL's form: called with N completions, it gives N floats.

    completions: N conversations of one assistant message; fields: N dicts, a record's columns. What
    raises, or gives None, NaN, or more than float32 holds, earns the completion 0 and is counted in
    the metric reward_failures; what could not be compared in time is in undecided_answers. Of the
    last call `failures` keeps those, `outside` the values of a bounded function that are not in
    [0, 1], and `calls` how many completions it had: `refuse_failing` reads them."""

    def __init__(self, name: str, function: Reward, counts_answers: bool, bounded: bool) -> None:
        self.__name__ = name  # TRL logs it as rewards/<name>
        self.function, self.counts_answers, self.bounded = function, counts_answers, bounded
        self.failures: list[str] = []
        self.outside: list[str] = []
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
        pairs = [*zip(texts, fields, strict=True)]

        def ask_all() -> list[Any]:
            return [_tried(self.function, text, record) for text, record in pairs]

        undecided, values = 0, []
        with judging(len(texts)) as batch:
            if self.function in COMPARING:
                try:
                    judge_ahead(batch, ask_all)
                except (RuntimeError, OSError) as error:  # no process for it: each would fail
                    return self.finish([error] * len(texts), texts, log_metric, 0)
            for text, record in pairs:
                before = batch.undecided
                values.append(_tried(self.function, text, record))
                undecided += batch.undecided > before
        return self.finish(values, texts, log_metric, undecided)

    def finish(
        self,
        values: list[Any],
        texts: list[str],
        log_metric: Callable[..., None] | None,
        undecided: int,
    ) -> list[float]:
        """What the function gave as rewards, with what failed counted."""
        self.calls = len(values)
        numbers = [_number(value) for value in values]
        pairs = [*zip(values, numbers, strict=True)]
        self.failures = [shown(value, _QUOTED) for value, number in pairs if number is None]
        self.outside = [
            shown(value, _QUOTED)
            for value, number in pairs
            if self.bounded and number is not None and not -ROUNDING <= number <= 1 + ROUNDING
        ]
        if self.failures:
            warnings.warn(
                f"reward {self.__name__}: {self.failures[0]} counts as 0, as all that is no finite "
                "number of 32 bits",
                stacklevel=2,
            )
        if log_metric is not None:
            log_metric("reward_failures", len(self.failures) / max(len(values), 1))
            if self.function in COMPARING or undecided:
                log_metric("undecided_answers", undecided / max(len(values), 1))
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
        undecided, values = 0, []
        with judging(len(texts)) as batch:
            for text, record in zip(texts, fields, strict=True):
                before, value = batch.undecided, _tried(self.function, text, record)
                try:
                    values.append(await value if inspect.isawaitable(value) else value)
                except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                    values.append(error)
                undecided += batch.undecided > before
        return self.finish(values, texts, log_metric, undecided)


def trl_rewards(
    functions: Mapping[str, Reward], bounded: Container[str] = frozenset()
) -> list[TrlReward]:
    """The functions in TRL's form; the first also counts the completions that hold an answer.

    bounded: the names of those whose values must be in [0, 1]."""
    first = next(iter(functions), None)
    return [
        (_Awaited if inspect.iscoroutinefunction(function) else TrlReward)(
            name, function, name == first, name in bounded
        )
        for name, function in functions.items()
    ]


def refuse_failing(rewards: Iterable[Any]) -> None:
    """Raise UserError for a function that has just failed on the whole rollout, and for a bounded
    one that has left [0, 1] on any completion.

    Every process calls it, and all raise or none: a process's own part may fail by chance."""
    for reward in rewards:
        counts = (reward.failures[:1], len(reward.failures), reward.calls, reward.outside[:1])
        parts = gather_object([counts])
        calls = sum(part[2] for part in parts)
        outside = [value for part in parts for value in part[3]]
        if outside:
            raise UserError(
                f"reward {reward.__name__}: is {outside[0]}; a task's rewards must be in [0, 1], "
                "and rl.rollout.reward_weights says what each is worth"
            )
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
    """A number that float32 holds; None for all else, texts included."""
    number = as_number(value)
    return number if number is not None and abs(number) <= _LARGEST else None


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
