"""Adapter from reward functions of a text to TRL's batched reward functions."""

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
# Completions logged per rollout; small compared with checkpoints.
_NUM_LOGGED = 4
# TRL stores float32 rewards; a larger value would be infinite.
_MAX_FLOAT32 = 3.4028234663852886e38
# Characters of a value quoted in a message.
_MAX_QUOTED = 200


class TrlReward:
    """A function f(completion, **fields) -> float in TRL's form: N completions -> N floats.

    completions: N conversations of one assistant message. fields: N records' columns. The reward is
    0 if the function raises or returns None, NaN or more than float32 holds. Metrics:
    reward_failures is the share of such values, undecided_answers the share of comparisons that
    timed out. Attributes of the last call, read by `refuse_failing`: `failures`, failed values;
    `outside`, values of a bounded function outside [0, 1]; `calls`, number of completions."""

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
        """Return N floats, or an awaitable of them for an async function."""
        texts = [messages[0]["content"] for messages in completions]
        pairs = [*zip(texts, fields, strict=True)]

        def call_all() -> list[Any]:
            return [_result(self.function, text, record) for text, record in pairs]

        undecided, values = 0, []
        with judging(len(texts)) as batch:
            if self.function in COMPARING:
                try:
                    judge_ahead(batch, call_all)
                except (RuntimeError, OSError) as error:  # no worker process: each would fail
                    return self.finish([error] * len(texts), texts, log_metric, 0)
            for text, record in pairs:
                before = batch.undecided
                values.append(_result(self.function, text, record))
                undecided += batch.undecided > before
        return self.finish(values, texts, log_metric, undecided)

    def finish(
        self,
        values: list[Any],
        texts: list[str],
        log_metric: Callable[..., None] | None,
        undecided: int,
    ) -> list[float]:
        """Return the rewards from the function's values; count and log failures."""
        self.calls, numbers = len(values), [_number(value) for value in values]
        self.failures = [
            shown(value, _MAX_QUOTED)
            for value, number in zip(values, numbers, strict=True)
            if number is None
        ]
        low, high = -ROUNDING, 1 + ROUNDING
        self.outside = [
            shown(value, _MAX_QUOTED)
            for value, number in zip(values, numbers, strict=True)
            if self.bounded and number is not None and not low <= number <= high
        ]
        if self.failures:
            warnings.warn(
                f"reward {self.__name__}: {self.failures[0]} is not a finite float32; it counts as "
                "0, like all such values",
                stacklevel=2,
            )
        if log_metric is not None:
            count = max(len(values), 1)
            log_metric("reward_failures", len(self.failures) / count)
            if self.function in COMPARING or undecided:
                log_metric("undecided_answers", undecided / count)
            if self.counts_answers:
                parsable = sum(answer_text(text) is not None for text in texts)
                log_metric("parsable_share", parsable / count)
        return [0.0 if number is None else number for number in numbers]


class _AsyncReward(TrlReward):
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
                before, value = batch.undecided, _result(self.function, text, record)
                try:
                    values.append(await value if inspect.isawaitable(value) else value)
                except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                    values.append(error)
                undecided += batch.undecided > before
        return self.finish(values, texts, log_metric, undecided)


def trl_rewards(
    functions: Mapping[str, Reward], bounded: Container[str] = frozenset()
) -> list[TrlReward]:
    """Wrap functions for TRL; the first logs parsable_share. bounded: names with range [0, 1]."""
    first = next(iter(functions), None)
    return [
        (_AsyncReward if inspect.iscoroutinefunction(function) else TrlReward)(
            name, function, name == first, name in bounded
        )
        for name, function in functions.items()
    ]


def refuse_failing(rewards: Iterable[Any]) -> None:
    """Raise UserError if a function failed on the entire rollout or left its bounds; collective.

    Only TrlReward functions are checked. All processes raise or none: failures on a single process
    may be chance."""
    for reward in rewards:
        if not isinstance(reward, TrlReward):
            continue
        counts = (reward.failures[:1], len(reward.failures), reward.calls, reward.outside[:1])
        parts = gather_object([counts])
        calls = sum(part[2] for part in parts)
        outside = [value for part in parts for value in part[3]]
        if outside:
            raise UserError(
                f"reward {reward.__name__}: is {outside[0]}; a task's rewards must be in [0, 1], "
                "set their weights with rl.rollout.reward_weights"
            )
        if calls and sum(part[1] for part in parts) == calls:
            raise UserError(
                f"reward {reward.__name__}: failed on all {calls} completions, first with "
                f"{parts[0][0][0]}; check the function and the records' fields"
            )


def _result(function: Reward, text: str, record: Mapping[str, Any]) -> Any:
    """The function's value, or the exception: one completion must not stop a run."""
    try:
        return function(text, **record)
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        return error


def _number(value: Any) -> float | None:
    """The value as a number if float32 holds it, else None; text is never a number."""
    number = as_number(value)
    return number if number is not None and abs(number) <= _MAX_FLOAT32 else None


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
