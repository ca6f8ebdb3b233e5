"""Where a task's records come from: generated, published, or a file."""

from weft_rl.data import countdown, sudoku
from weft_rl.data.records import Record, load_records

# Held-out records are the same in every run, whatever its seed: runs are compared on them.
_HELD_OUT_SEED = 0
# Empty cells of a generated puzzle, as in the published test set.
_BLANKS = (8, 8)


def training_records(task: str, count: int, seed: int) -> list[Record]:
    """Generated records of the training split."""
    if task == "sudoku":
        return sudoku.generate("train", count, seed, _BLANKS)
    return countdown.generate("train", count, seed)


def held_out_records(task: str, count: int, data: str | None) -> list[Record]:
    """At most `count` records to evaluate on: the generated test split, "published", or a file's.

    Raises UserError for a file that cannot be read."""
    if data is not None:
        return load_records(task, data)[:count]
    if task == "sudoku":
        return sudoku.generate("test", count, _HELD_OUT_SEED, _BLANKS)
    return countdown.generate("test", count, _HELD_OUT_SEED)
