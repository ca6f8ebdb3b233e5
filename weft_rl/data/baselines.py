"""Policies without a model, to print beside every result: what an answer is worth for free."""

from collections.abc import Callable, Mapping

import numpy as np

from rewards.grid import CELLS, DIGITS
from weft_rl.data.prompts import tagged_answer
from weft_rl.data.records import Record
from weft_rl.data.sudoku import fill_rows
from weft_rl.seeding import seed_for


def all_ones(record: Record) -> str:
    """Every cell a 1: a quarter of any grid is right."""
    return tagged_answer("tiny", "", "1" * CELLS)


def random_digits(record: Record) -> str:
    """Every cell a digit drawn for this puzzle: a quarter is right on average."""
    rng = np.random.default_rng(seed_for("random digits", str(record.fields["puzzle"])))
    return tagged_answer("tiny", "", "".join(rng.choice(list(DIGITS), CELLS)))


def row_filling(record: Record) -> str:
    """Each row's empty cells filled with the digits that the row lacks, in ascending order."""
    return tagged_answer("tiny", "", fill_rows(str(record.fields["puzzle"])))


def sum_of_numbers(record: Record) -> str:
    """Countdown's numbers added up, whatever the target."""
    return tagged_answer("tiny", "", "+".join(map(str, record.fields["numbers"])))


# By task and name; each takes a record and returns a completion.
BASELINES: Mapping[str, Mapping[str, Callable[[Record], str]]] = {
    "sudoku": {"all ones": all_ones, "random digits": random_digits, "row filling": row_filling},
    "countdown": {"sum of the numbers": sum_of_numbers},
}
