"""Loading, validation and error reporting of a user's task file."""

import asyncio
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from weft_rl.data.prompts import PromptStyle
from weft_rl.data.records import Split
from weft_rl.errors import UserError
from weft_rl.rewards.registry import Reward

Fields = Mapping[str, Any]
Prompt = Callable[[Fields], str]

_TRIED = ("", "<answer>1</answer>", "no answer")


@dataclass(frozen=True)
class Task:
    """A task: `TASK` of the file in `task=`, or an entry of tasks.REGISTRY.

    prompt: fields to user message; built-in tasks have one per prompt style. fields: a row
    (lower-case columns) to record fields; raises ValueError for a bad row. training, evaluation:
    rewards by name, f(completion, **fields) in [0, 1]; the first evaluation entry is the score.
    generate: (split, count, seed) to fields of distinct records with disjoint splits, or None.
    columns: lower-case columns that `fields` reads; None: any. published: target of data=published,
    a package file or a Hub data set."""

    prompt: Prompt | Mapping[PromptStyle, Prompt]
    fields: Callable[[Fields], dict[str, Any]]
    training: Mapping[str, Reward] = field(default_factory=dict)
    evaluation: Mapping[str, Reward] = field(default_factory=dict)
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
    task: Any = getattr(module, "TASK", None)
    _require(isinstance(task, Task), name, "TASK", task, "a Task(...)")
    for part in ("prompt", "fields", "generate"):
        value = getattr(task, part)
        is_absent = part == "generate" and value is None
        _require(callable(value) or is_absent, name, part, value, "a function")
    for part in ("training", "evaluation"):
        rewards = getattr(task, part)
        is_table = isinstance(rewards, Mapping) and len(rewards) > 0
        _require(is_table, name, part, rewards, "rewards by name, at least one")
        for key, reward in rewards.items():
            is_reward = isinstance(key, str) and callable(reward)
            _require(is_reward, name, f"{part}[{key!r}]", reward, "a function, under a name")
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
        problem = f"{what} raises {kind}{text and f': {text}'}"
        raise UserError(f"task={place}: {problem}; fix it") from error


def _is_same(file: str | None, task: str) -> bool:
    return file is not None and Path(file).resolve() == Path(task).resolve()


def _require(condition: bool, task: str, part: str, value: Any, rule: str) -> None:
    if not condition:
        kind = "missing" if value is None else f"a {type(value).__name__}"
        raise UserError(f"task={task}: {part} must be {rule}, and is {kind}; see docs/tasks.md")


def _checked_generator(name: str, generate: Callable[..., Any]) -> Callable[..., Any]:
    guarded = user_code(name, "generate")(generate)

    def checked(split: Split, count: int, seed: int) -> Sequence[dict[str, Any]]:
        rows = guarded(split, count, seed)
        is_list = isinstance(rows, Sequence) and all(isinstance(row, dict) for row in rows)
        rule = "a list of dicts, the fields, at least one"
        _require(is_list and len(rows) > 0, name, "what generate returns", rows, rule)
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
    is_text = isinstance(prompt, str) and bool(prompt.strip())
    _require(is_text, name, "what prompt returns", prompt, "a text that is not empty")
    for rewards, is_failure in ((training, all), (evaluation, any)):
        for key, reward in rewards.items():
            problems = [_problem(name, key, reward, text, fields) for text in _TRIED]
            if is_failure(problems):
                raise UserError(next(filter(None, problems)))


def _problem(task: str, name: str, reward: Reward, text: str, fields: Fields) -> str:
    async def awaited(value: Any) -> Any:
        return await value

    try:
        with user_code(task, name):
            value: Any = reward(text, **fields)
            value = asyncio.run(awaited(value)) if inspect.isawaitable(value) else value
            number = float("nan") if isinstance(value, str | bytes) else float(value)
    except UserError as error:
        return str(error)
    problem = f"task={task}: {name} returns {str(value)[:40]!r} for the completion {text!r}"
    return "" if isfinite(number) else f"{problem}; return a number in [0, 1]"
