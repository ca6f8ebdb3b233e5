"""Adapter from reward functions of a text to TRL's batched reward functions."""

import inspect
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn
from trl.trainer.utils import is_async_callable

from weft_rl.evaluation.scores import ROUNDING, as_number, shown
from weft_rl.rewards.extract import answer_text
from weft_rl.rewards.math500 import judge_ahead, judging
from weft_rl.rewards.registry import COMPARING

Reward = Callable[..., Any]
# TRL stores float32 rewards; a larger value would be infinite.
_MAX_FLOAT32 = 3.4028234663852886e38
# Characters of a value quoted in a message.
_MAX_QUOTED = 200
_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
Completion = str | Sequence[Mapping[str, str]]
# What TRL passes to reward functions besides the dataset's columns.
TRL_ARGUMENTS = frozenset(
    {"prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra"}
)


class TrlReward:
    """A function f(completion, **fields) -> float in TRL's form: N completions -> N floats.

    completions: N texts or conversations of one assistant message. columns: of N values each; the
    function gets those that it takes, and the entries of a column `fields`. The reward is 0 if the
    function raises or returns None, NaN or more than float32 holds. Metrics: reward_failures is the
    share of such values, undecided_answers the share of comparisons that timed out. Attributes of
    the last call, read by `refuse_failing`: `failures`, failed values; `outside`, values of a
    bounded function outside [0, 1]; `calls`, number of completions."""

    def __init__(self, name: str, function: Reward, counts_answers: bool, bounded: bool) -> None:
        self.__name__ = name  # TRL logs it as rewards/<name>
        self.function, self.counts_answers, self.bounded = function, counts_answers, bounded
        parameters = inspect.signature(function).parameters
        self.accepted, self.first_parameter = _accepted(function), next(iter(parameters), "")
        self.required = [
            each.name
            for each in parameters.values()
            if each.default is each.empty
            and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        ]
        self.failures: list[str] = []
        self.outside: list[str] = []
        self.calls = self.failed_rollouts = 0

    def _arguments(
        self, completions: Sequence[Completion], columns: Mapping[str, Any]
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """The text and the record of each completion."""
        texts = [each if isinstance(each, str) else each[0]["content"] for each in completions]
        names = [name for name in columns if name not in TRL_ARGUMENTS and name != "fields"]
        records = []
        for i in range(len(texts)):
            record = {name: columns[name][i] for name in names} | (
                columns["fields"][i] if "fields" in columns else {}
            )
            if self.accepted is not None:
                record = {name: record[name] for name in record if name in self.accepted}
            records.append(record)
        return texts, records

    def __call__(
        self,
        completions: Sequence[Completion],
        log_metric: Callable[..., None] | None = None,
        **columns: Any,
    ) -> Any:
        """Return N floats, or an awaitable of them for an async function."""
        texts, records = self._arguments(completions, columns)
        pairs = [*zip(texts, records, strict=True)]

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
    ) -> list[float | None]:
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
            what = "raised" if any(isinstance(each, Exception) for each in values) else "returned"
            warnings.warn(
                f"reward {self.__name__}: {what} {self.failures[0]}; such values count as 0",
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
        completions: Sequence[Completion],
        log_metric: Callable[..., None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        texts, records = self._arguments(completions, columns)
        undecided, values = 0, []
        with judging(len(texts)) as batch:
            for text, record in zip(texts, records, strict=True):
                before, value = batch.undecided, _result(self.function, text, record)
                try:
                    values.append(await value if inspect.isawaitable(value) else value)
                except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                    values.append(error)
                undecided += batch.undecided > before
        return self.finish(values, texts, log_metric, undecided)


class BatchReward(TrlReward):
    """A reward function in TRL's form, guarded: if it raises, its rewards are 0.

    None stays None, TRL's value of a reward that does not apply."""

    def __call__(
        self,
        completions: Sequence[Completion],
        log_metric: Callable[..., None] | None = None,
        **arguments: Any,
    ) -> Any:
        """Return N floats or None, or an awaitable of them for an async function."""
        try:
            values = self.function(**self._accepted_of(completions, log_metric, arguments))
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            values = [error] * len(completions)
        return self.checked(values, completions, log_metric)

    def _accepted_of(
        self,
        completions: Sequence[Completion],
        log_metric: Callable[..., None] | None,
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        given: dict[str, Any] = {"completions": completions, "log_metric": log_metric, **arguments}
        names = given if self.accepted is None else self.accepted & given.keys()
        return {name: given[name] for name in names}

    def checked(
        self,
        values: Any,
        completions: Sequence[Completion],
        log_metric: Callable[..., None] | None,
    ) -> list[float | None]:
        """Return the rewards; count failures. Raises ValueError for another number of values."""
        try:
            values = [*values]
        except TypeError as error:
            name = type(values).__name__
            raise ValueError(f"reward {self.__name__}: returned {name}, not a list") from error
        if len(values) != len(completions):
            raise ValueError(
                f"reward {self.__name__}: returned {len(values)} values for {len(completions)} "
                "completions; return one per completion"
            )
        none = [value is None for value in values]
        numbers = self.finish(
            [0.0 if value is None else value for value in values], [], log_metric, 0
        )
        return [None if missing else number for missing, number in zip(none, numbers, strict=True)]


class _AsyncBatchReward(BatchReward):
    async def __call__(
        self,
        completions: Sequence[Completion],
        log_metric: Callable[..., None] | None = None,
        **arguments: Any,
    ) -> list[float | None]:
        try:
            values = await self.function(**self._accepted_of(completions, log_metric, arguments))
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            values = [error] * len(completions)
        return self.checked(values, completions, log_metric)


def adapted_rewards(functions: Any) -> list[Any]:
    """Return reward functions in TRL's form; models and their names stay for TRL.

    functions: one or a list. A function with a parameter completions, prompts or completion_ids, or
    with only **kwargs, has TRL's form; others are called with one completion."""
    adapted: list[Any] = []
    names: list[str] = []
    for function in functions if isinstance(functions, list | tuple) else [functions]:
        if isinstance(function, TrlReward | nn.Module | str):
            adapted.append(function)
            continue
        if not callable(function):
            raise ValueError(f"reward_funcs: {shown(function, _MAX_QUOTED)} is not a function")
        inner = function
        while isinstance(inner, partial):
            inner = inner.func
        names.append(getattr(inner, "__name__", type(inner).__name__))
        # metrics have the functions' names: the second f is f_2
        number = names.count(names[-1])
        name = names[-1] if number == 1 else f"{names[-1]}_{number}"
        parameters = inspect.signature(function).parameters
        only_kwargs = _accepted(function) is None and len(parameters) == 1
        is_async = is_async_callable(function)
        if only_kwargs or not TRL_ARGUMENTS.isdisjoint(parameters):
            kind = _AsyncBatchReward if is_async else BatchReward
        else:
            kind = _AsyncReward if is_async else TrlReward
        adapted.append(kind(name, function, False, False))
    return adapted


def _accepted(function: Reward) -> frozenset[str] | None:
    """Names of a function's parameters; None: any."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind == each.VAR_KEYWORD for each in parameters):
        return None
    return frozenset(each.name for each in parameters)


def trl_rewards(
    functions: Mapping[str, Reward], bounded: Container[str] = frozenset()
) -> list[TrlReward]:
    """Wrap functions for TRL; the first logs parsable_share. bounded: names with range [0, 1]."""
    first = next(iter(functions), None)
    return [
        (_AsyncReward if is_async_callable(function) else TrlReward)(
            name, function, name == first, name in bounded
        )
        for name, function in functions.items()
    ]


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
