"""What a record of a generations file holds: d1's form, and that of a run's completions.

d1's form has `question`, `generation` and `ground_truth`; RUN/completions/*.jsonl have `completion`
and the record's `fields`."""

from collections.abc import Callable, Mapping
from typing import Any

from weft_rl.data.tasks import REGISTRY
from weft_rl.rewards.scoring import JUDGES

Fields = Mapping[str, Any]

# What is looked at of a record, unless the task is one's own.
COLUMNS = frozenset({"question", "generation", "ground_truth", "completion", "fields", "task"})
# The fields of a task's record as d1's form has them.
_STORED: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "sudoku": lambda fields: {"question": fields["puzzle"], "ground_truth": fields["solution"]},
    "countdown": lambda fields: {"ground_truth": [fields["numbers"], fields["target"]]},
    "gsm8k": lambda fields: {"ground_truth": fields["answer"]},
    "math500": lambda fields: {"question": fields["problem"], "ground_truth": fields["answer"]},
}


def parse(task: str, row: Fields) -> tuple[str, dict[str, Any]] | str:
    """The generation and the fields of a record, or what is wrong with it."""
    if row.get("task") in [name for name in JUDGES if name != task]:
        return f"is of task={row['task']}"
    fields = row.get("fields")
    from_run = row.get("generation") is None and isinstance(fields, dict)
    generation = row.get("completion") if from_run else row.get("generation")
    if not isinstance(generation, str):
        return "must be an object with a text `generation`, or with `completion` and `fields`"
    try:
        if task in JUDGES:
            return generation, JUDGES[task].fields(_STORED[task](fields) if from_run else row)
        return generation, fields if isinstance(fields, dict) else REGISTRY[task].fields(row)
    except ValueError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        return f"its fields cannot be read ({type(error).__name__}: {error})"
