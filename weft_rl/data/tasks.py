"""Where a task's records come from, and how a task of one's own joins those of the package."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np

from weft_rl.data import countdown, sudoku
from weft_rl.data.own_task import Split, Task, check_task, generated, guarded, own_code
from weft_rl.data.prompts import PROMPTS, PromptStyle
from weft_rl.data.records import FIELDS, Record, load_records
from weft_rl.data.rejects import Rejects
from weft_rl.data.trace_sources import is_hub_id
from weft_rl.errors import UserError
from weft_rl.rewards.registry import REWARDS, add_task

# Held-out records are the same in every run, whatever its seed: runs are compared on them.
_HELD_OUT_SEED = 0
# Empty cells of a generated puzzle, as in the published test set.
_BLANKS = (8, 8)
# Data sets of the hub that stand for "published"; their test splits.
HUB = {"gsm8k": "openai/gsm8k:main", "math500": "HuggingFaceH4/MATH-500"}


def _sudoku(split: Split, count: int, seed: int) -> list[Record]:
    return sudoku.generate(split, count, seed, _BLANKS)


# By task; those that are missing have files only.
GENERATORS: dict[str, Callable[[Split, int, int], list[Record]]] = {
    "sudoku": _sudoku,
    "countdown": countdown.generate,
}


def load_task(name: str) -> None:
    """Make `task=name` known: nothing to do for the package's, a file is run for its `TASK`.

    Raises UserError for an unknown task and for a file without one."""
    if name in REWARDS:
        return
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
        known = ", ".join(REWARDS)
        raise UserError(f"task={name}: must be one of {known}, or a Python file with a TASK")
    module = importlib.util.module_from_spec(spec)
    with own_code(name, "it"):
        spec.loader.exec_module(module)
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        problem = "has no TASK" if task is None else f"its TASK is of type {type(task).__name__}"
        raise UserError(f"task={name}: {problem}; write TASK = Task(...), see docs/tasks.md")
    check_task(name, task)
    _join(name, task)


def _join(name: str, task: Task) -> None:
    """Make a task known; what its functions raise names its file and line, but for the training
    rewards, of which a run stands some."""
    scores = {key: guarded(name, key, score) for key, score in task.evaluation.items()}
    add_task(name, task.training, scores)
    FIELDS[name] = guarded(name, "fields", task.fields, passed=(ValueError,))
    prompt = guarded(name, "prompt", task.prompt)
    PROMPTS.update({(style, name): prompt for style in get_args(PromptStyle)})
    if task.generate is not None:
        generate = guarded(name, "generate", task.generate)
        GENERATORS[name] = lambda split, count, seed: [
            Record(f"{split}-{seed}-{i}", name, fields)
            for i, fields in enumerate(generated(name, generate(split, count, seed)))
        ]


def training_records(task: str, count: int, seed: int) -> list[Record]:
    """Generated records of the training split. Raises UserError for a task that has none."""
    if task not in GENERATORS:
        raise UserError(
            f"rl.rollout.data=null: there are no generated records of task={task}; name a file"
        )
    return GENERATORS[task]("train", count, seed)


def held_out_records(
    task: str, count: int | None, data: str | None, rejects: Rejects | None = None
) -> list[Record]:
    """At most `count` records to evaluate on, or all: the generated test split, "published", "d1"
    (the 256 of the published Sudoku puzzles that d1 evaluates, in its order), or a file's.

    rejects: as load_records takes it. Raises UserError for a file that cannot be read, and for a
    task that has no such records."""
    if data == "d1":
        if task != "sudoku":
            raise UserError(f"eval.data=d1: is for task=sudoku, not task={task}; use published")
        records = load_records(task, "published")
        # the draw of numpy's old generator is what d1's subset is: no other gives it
        drawn = np.random.RandomState(42).choice(len(records), 256, replace=False)
        return [records[i] for i in drawn][:count]
    if data is not None:
        return load_records(task, data, rejects)[:count]
    if task not in GENERATORS or count is None:
        raise UserError(f"eval.data=null: there are no generated records of task={task}; name some")
    return GENERATORS[task]("test", count, _HELD_OUT_SEED)


def hub_name(task: str, data: str | None) -> str | None:
    """The hub's name for `data=`, "owner/name" or "owner/name:configuration"; None for all else."""
    if data in (None, "published") and task in HUB:
        return HUB[task]
    return data if data is not None and is_hub_id(data) and not Path(data).exists() else None
