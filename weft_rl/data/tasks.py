"""Task registry, and records from generators, files and the Hub."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weft_rl.config.fields import shown
from weft_rl.data import countdown, prompts, records, sudoku
from weft_rl.data.files import read_rows
from weft_rl.data.json_rows import Row
from weft_rl.data.prompts import PromptFormat, PromptStyle, chat_prompt
from weft_rl.data.records import PACKAGED, Record, Split
from weft_rl.data.rejects import Rejects
from weft_rl.data.sources import hub_rows, is_hub_id
from weft_rl.data.task_file import Task, read_task
from weft_rl.errors import UserError
from weft_rl.rewards.registry import add_task

_HELD_OUT_SEED = 0  # held-out records do not depend on the run's seed: runs are comparable

# Keyed by the value of task=; load_task adds entries from files. Rewards: rewards/registry.py.
REGISTRY: dict[str, Task] = {
    "sudoku": Task(
        prompt=prompts.SUDOKU,
        fields=records.sudoku_fields,
        generate=sudoku.generate,
        columns=frozenset({"puzzle", "solution"}),
        published="sudoku_4x4_test.csv",
    ),
    "countdown": Task(
        prompt=prompts.COUNTDOWN,
        fields=records.countdown_fields,
        generate=countdown.generate,
        columns=frozenset({"numbers", "nums", "input", "target", "output"}),
        published=countdown.PUBLISHED,
    ),
    "gsm8k": Task(
        prompt=prompts.GSM8K,
        fields=records.gsm8k_fields,
        columns=frozenset({"question", "answer"}),
        published="openai/gsm8k:main",
    ),
    "math500": Task(
        prompt=prompts.MATH500,
        fields=records.math500_fields,
        columns=frozenset({"problem", "answer", "solution"}),
        published="HuggingFaceH4/MATH-500",
    ),
}


def load_task(name: str) -> None:
    """Register the task of a file, if new. Raises UserError for an unknown or invalid task."""
    if name not in REGISTRY:
        REGISTRY[name] = task = read_task(name, [*REGISTRY])
        add_task(name, task.training, task.evaluation)


def task_prompt(
    style: PromptStyle, task: str, fields: Mapping[str, Any], template: str | None = None
) -> str:
    """Return the user message, of the template if any.

    Raises UserError if the style has no prompt for the task, or the fields do not fit."""
    if template is not None:
        try:
            return template.format_map(fields)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            names = ", ".join(f"{{{name}}}" for name in fields)
            problem = f"unknown field {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"task.prompt={shown(template)}: {problem}; task={task} has {names}"
            ) from error
    prompt = _known(task).prompt
    if not isinstance(prompt, Mapping):
        return prompt(fields)
    if style not in prompt:
        raise UserError(
            f"prompt_style={style}: has no prompt for task={task}; use {' or '.join(prompt)}"
        )
    return prompt[style](fields)


def task_chat(wording: PromptFormat, record: Record) -> list[dict[str, str]]:
    """Return the chat of a record's prompt. Raises UserError as task_prompt."""
    text = task_prompt(wording.style, record.task, record.fields, wording.template)
    return chat_prompt(text, system=wording.system)


def load_records(
    task: str, data: str, rejects: Rejects | None = None, split: Split = "test"
) -> list[Record]:
    """Load the records of a file, a packaged test set or a Hub data set.

    data: a path, a Hub name (its `split` is read) or "published". records.py lists each task's
    columns. rejects: policy for malformed and duplicate records (default: raise, skip). Raises
    UserError with file and line, and for an empty source."""
    columns, published = _known(task).columns, _known(task).published
    rejects = rejects or Rejects("error", None)
    name = hub_name(task, data)
    if name is not None:
        return _records(task, hub_rows(name, name, split, columns), name, name, rejects)
    is_packaged = data == "published" and published is not None
    path = PACKAGED / published if is_packaged else Path(data)
    rows = read_rows(path, columns, rejects)
    return _records(task, rows, str(path), data if is_packaged else path.name, rejects)


def _known(task: str) -> Task:
    if task not in REGISTRY:
        raise UserError(f"task={task}: must be one of {', '.join(REGISTRY)}")
    return REGISTRY[task]


def _records(
    task: str, rows: Iterable[Row], place: str, name: str, rejects: Rejects
) -> list[Record]:
    """Unique records of rows; place: source in errors; name: prefix of their ids."""
    kept: list[Record] = []
    places: dict[str, str] = {}
    known = REGISTRY[task].columns
    for where, row in rows:
        lower = {key.lower(): value for key, value in row.items()}
        try:
            fields = REGISTRY[task].fields(lower)
        except ValueError as error:
            is_other = known is not None and known.isdisjoint(lower)
            others = f" (its columns are {shown([*row])})" if is_other else ""
            rejects(UserError(f"{where}: {error}{others}; fix or remove the record"))
            continue
        content = repr(fields)
        if content in places:
            rejects.repeat(where, places[content])
        else:
            places[content] = where
            kept.append(Record(f"{name}-{len(kept)}", task, fields))
    if not kept:
        raise UserError(f"{place}: holds no records{rejects.first()}; name a file that does")
    return kept


def training_records(task: str, count: int, seed: int) -> list[Record]:
    """Generate training records. Raises UserError if the task has no generator."""
    return _generated(task, "train", count, seed, "rl.rollout.data")


def _generated(task: str, split: Split, count: int | None, seed: int, key: str) -> list[Record]:
    generate = REGISTRY[task].generate
    if generate is None or count is None:
        raise UserError(f"{key}=null: task={task} has no generated records; name a file")
    rows = generate(split, count, seed)
    return [Record(f"{split}-{seed}-{i}", task, fields) for i, fields in enumerate(rows)]


def held_out_records(
    task: str, count: int | None, data: str | None, rejects: Rejects | None = None
) -> list[Record]:
    """Return at most `count` evaluation records. Raises UserError if they cannot be read.

    data: None for the task's own records, generated or from the Hub. "d1" selects the 256 Sudoku
    puzzles of d1's evaluation in its order. Other values and rejects: as for load_records."""
    if data == "d1":
        if task != "sudoku":
            raise UserError(f"eval.data=d1: is for task=sudoku, not task={task}; use published")
        published = load_records(task, "published")
        # d1 draws its subset with numpy's legacy generator
        drawn = np.random.RandomState(42).choice(len(published), 256, replace=False)
        return [published[i] for i in drawn][:count]
    if data is not None or hub_name(task, None) is not None:
        return load_records(task, data or "published", rejects)[:count]
    return _generated(task, "test", count, _HELD_OUT_SEED, "eval.data")


def hub_name(task: str, data: str | None) -> str | None:
    """Return the Hub name for `data=`, or the task's own for "published" and None; else None."""
    is_own = data in (None, "published")
    name = REGISTRY[task].published if is_own else data
    is_hub = name is not None and is_hub_id(name) and (is_own or not Path(name).exists())
    return name if is_hub else None
