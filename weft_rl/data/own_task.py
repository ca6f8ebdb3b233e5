"""A task of one's own: what its file holds, and its errors as one line with file and line."""

import asyncio
import inspect
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from weft_rl.errors import UserError
from weft_rl.rewards.registry import Reward

Split = Literal["train", "test"]
Fields = Mapping[str, Any]

# Completions that a task's rewards are tried on before a run.
_TRIED = ("", "<answer>1</answer>", "no answer")


@dataclass(frozen=True)
class Task:
    """A task of one's own: the value of `TASK` in the file that `task=` names.

    prompt: fields to what the user says; fields: a row of a file to the record's fields, raising
    ValueError for one that is wrong; training, evaluation: rewards by name, f(completion, **fields)
    in [0, 1], the first evaluation being the score; generate: (split, count, seed) to fields of
    distinct records, the splits without overlap, or None if records only come from files."""

    prompt: Callable[[Fields], str]
    fields: Callable[[Fields], dict[str, Any]]
    training: Mapping[str, Reward]
    evaluation: Mapping[str, Reward]
    generate: Callable[[Split, int, int], Sequence[dict[str, Any]]] | None = None


@contextmanager
def own_code(task: str, what: str, passed: tuple[type[Exception], ...] = ()) -> Generator[None]:
    """Run code of a task's file: what it raises is a UserError with the file's line.

    what: whose code it is; passed: what goes through as it is."""
    try:
        yield
    except (UserError, *passed):
        raise
    # the file may end the process as well
    except (Exception, SystemExit) as error:
        kind, text = type(error).__name__, " ".join(str(error).split())[:200]
        if isinstance(error, SyntaxError) and _same(error.filename, task):
            place, text = f"{task}:{error.lineno}", error.msg
        else:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if _same(frame.filename, task)]
            place = f"{task}:{lines[-1]}" if lines else task
        raise UserError(
            f"task={place}: {what} raises {kind}{text and f': {text}'}; mend it"
        ) from error


def _same(file: str | None, task: str) -> bool:
    return file is not None and Path(file).resolve() == Path(task).resolve()


def guarded(
    task: str, name: str, function: Callable[..., Any], passed: tuple[type[Exception], ...] = ()
) -> Callable[..., Any]:
    """The function, whose errors are own_code's."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with own_code(task, name, passed):
            return function(*args, **kwargs)

    return call


def check_task(name: str, task: Task) -> None:
    """Raise UserError for a part of TASK of the wrong type."""
    for part in ("prompt", "fields", "generate"):
        value = getattr(task, part)
        if not (callable(value) or (value is None and part == "generate")):
            raise _wrong(name, part, value, "a function")
    for part in ("training", "evaluation"):
        value = getattr(task, part)
        if not isinstance(value, Mapping) or not value:
            raise _wrong(name, part, value, "rewards by name, at least one")
        for key, reward in value.items():
            if not isinstance(key, str) or not callable(reward):
                raise _wrong(name, f"{part}[{key!r}]", reward, "a function, under a name")


def generated(name: str, rows: Any) -> Sequence[dict[str, Any]]:
    """What `generate` gave. Raises UserError unless these are the fields of records."""
    if not isinstance(rows, Sequence) or not all(isinstance(row, dict) for row in rows):
        raise _wrong(name, "what generate gives", rows, "a list of dicts, the records' fields")
    if not rows:
        raise UserError(f"task={name}: generate gives no records; see docs/tasks.md")
    return rows


def try_task(
    name: str,
    prompt: Any,
    training: Mapping[str, Reward],
    evaluation: Mapping[str, Reward],
    fields: Fields,
) -> None:
    """Try the prompt and the rewards of a task on a record.

    Raises UserError for a prompt that is no text, a training reward that fails on every completion
    tried, of which a run stands some, and an evaluation that fails on any."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise _wrong(name, "what prompt gives", prompt, "a text that is not empty")
    for key, reward in training.items():
        problems = [_problem(name, key, reward, text, fields) for text in _TRIED]
        if all(problems):
            raise UserError(problems[0])
    for key, reward in evaluation.items():
        for text in _TRIED:
            problem = _problem(name, key, reward, text, fields)
            if problem:
                raise UserError(problem)


def _problem(task: str, name: str, reward: Reward, text: str, fields: Fields) -> str:
    """What is wrong with the value of a reward; empty when it is a finite number."""
    try:
        with own_code(task, name):
            value: Any = reward(text, **fields)
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
            number = float("nan") if isinstance(value, str | bytes) else float(value)
    except UserError as error:
        return str(error)
    kind = f"task={task}: {name} gives {str(value)[:40]!r} for the completion {text!r}"
    return "" if isfinite(number) else f"{kind}; it must be a number in [0, 1]"


async def _awaited(value: Any) -> Any:
    return await value


def _wrong(task: str, part: str, value: Any, wanted: str) -> UserError:
    kind = type(value).__name__
    return UserError(f"task={task}: {part} must be {wanted}, and is a {kind}; see docs/tasks.md")
