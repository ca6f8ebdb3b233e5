"""Loading, validation and error reporting of a user's task file."""

import asyncio
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from weft_rl.data.prompts import PromptStyle
from weft_rl.errors import UserError
from weft_rl.rewards.registry import Reward

Split = Literal["train", "test"]
Fields = Mapping[str, Any]
Prompt = Callable[[Fields], str]

_TRIED = ("", "<answer>1</answer>", "no answer")


@dataclass(frozen=True)
class Task:
    """A task: `TASK` of the file in `task=`, or an entry of tasks.REGISTRY.

    prompt: fields to user message, optionally per prompt style. fields: a row (lower-case columns)
    to record fields; raises ValueError for a bad row. training, evaluation: rewards by name,
    f(completion, **fields) in [0, 1]; the first evaluation entry is the score. generate: (split,
    count, seed) to fields of distinct records with disjoint splits, or None. columns: lower-case
    columns that `fields` reads; None: any. published: target of data=published, a package file or a
    Hub data set."""

    prompt: Prompt | Mapping[PromptStyle, Prompt]
    fields: Callable[[Fields], dict[str, Any]]
    training: Mapping[str, Reward]
    evaluation: Mapping[str, Reward]
    generate: Callable[[Split, int, int], Sequence[dict[str, Any]]] | None = None
    columns: frozenset[str] | None = None
    published: str | None = None


def read_task(name: str, known: Sequence[str]) -> Task:
    """Return the TASK of a Python file; errors of its functions name the file and line.

    Training rewards are not wrapped, because a run survives some failures. known: built-in task
    names. Raises UserError for a missing TASK or parts of the wrong type."""
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
        choices = ", ".join(known)
        raise UserError(f"task={name}: must be one of {choices}, or a Python file with a TASK")
    module = importlib.util.module_from_spec(spec)
    with user_code(name, "it"):
        spec.loader.exec_module(module)
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        problem = "has no TASK" if task is None else f"its TASK is of type {type(task).__name__}"
        raise UserError(f"task={name}: {problem}; write TASK = Task(...), see docs/tasks.md")
    _check_parts(name, task)
    return replace(
        task,
        prompt=user_code(name, "prompt")(task.prompt),
        fields=user_code(name, "fields", passed=(ValueError,))(task.fields),
        evaluation={key: user_code(name, key)(each) for key, each in task.evaluation.items()},
        generate=task.generate and _checked_generator(name, task.generate),
    )


@contextmanager
def user_code(task: str, what: str, passed: tuple[type[Exception], ...] = ()) -> Generator[None]:
    """Convert exceptions in a task file's code, except `passed`, into a UserError with the line."""
    try:
        yield
    except (UserError, *passed):
        raise
    # the file may call exit()
    except (Exception, SystemExit) as error:
        kind, text = type(error).__name__, " ".join(str(error).split())[:200]
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if _is_same(frame.filename, task)]
        if isinstance(error, SyntaxError) and _is_same(error.filename, task):
            lines, text = [error.lineno], error.msg
        place = f"{task}:{lines[-1]}" if lines else task
        raise UserError(
            f"task={place}: {what} raises {kind}{text and f': {text}'}; fix it"
        ) from error


def _is_same(file: str | None, task: str) -> bool:
    return file is not None and Path(file).resolve() == Path(task).resolve()


def _check_parts(name: str, task: Task) -> None:
    for part in ("prompt", "fields", "generate"):
        value = getattr(task, part)
        if not callable(value) and (value is not None or part != "generate"):
            raise _wrong(name, part, value, "a function")
    for part in ("training", "evaluation"):
        rewards = getattr(task, part)
        if not isinstance(rewards, Mapping) or not rewards:
            raise _wrong(name, part, rewards, "rewards by name, at least one")
        for key, reward in rewards.items():
            if not isinstance(key, str) or not callable(reward):
                raise _wrong(name, f"{part}[{key!r}]", reward, "a function, under a name")


def _checked_generator(name: str, generate: Callable[..., Any]) -> Callable[..., Any]:
    guarded = user_code(name, "generate")(generate)

    def checked(split: Split, count: int, seed: int) -> Sequence[dict[str, Any]]:
        rows = guarded(split, count, seed)
        if not isinstance(rows, Sequence) or not all(isinstance(row, dict) for row in rows):
            raise _wrong(name, "what generate returns", rows, "a list of dicts, the fields")
        if not rows:
            raise UserError(f"task={name}: generate returns no records; see docs/tasks.md")
        return rows

    return checked


def try_task(
    name: str,
    prompt: Any,
    training: Mapping[str, Reward],
    evaluation: Mapping[str, Reward],
    fields: Fields,
) -> None:
    """Test the prompt and the rewards of a task on a record.

    Raises UserError for a non-text prompt, a training reward that always fails, or a bad score."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise _wrong(name, "what prompt returns", prompt, "a text that is not empty")
    for rewards, is_failure in ((training, all), (evaluation, any)):
        for key, reward in rewards.items():
            problems = [_problem(name, key, reward, text, fields) for text in _TRIED]
            if is_failure(problems):
                raise UserError(next(filter(None, problems)))


def _problem(task: str, name: str, reward: Reward, text: str, fields: Fields) -> str:
    try:
        with user_code(task, name):
            value: Any = reward(text, **fields)
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
            number = float("nan") if isinstance(value, str | bytes) else float(value)
    except UserError as error:
        return str(error)
    problem = f"task={task}: {name} returns {str(value)[:40]!r} for the completion {text!r}"
    return "" if isfinite(number) else f"{problem}; return a number in [0, 1]"


async def _awaited(value: Any) -> Any:
    return await value


def _wrong(task: str, part: str, value: Any, wanted: str) -> UserError:
    kind = type(value).__name__
    return UserError(f"task={task}: {part} must be {wanted}, and is a {kind}; see docs/tasks.md")
