"""Policies without a model, to print beside every result: what an answer is worth for free."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from weft_rl.data.prompts import tagged_answer
from weft_rl.data.records import Record
from weft_rl.data.sudoku import fill_rows
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS
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


def copy_of_the_puzzle(record: Record) -> str:
    """The puzzle as it is, its empty cells empty."""
    return tagged_answer("tiny", "", str(record.fields["puzzle"]))


def sum_of_numbers(record: Record) -> str:
    """Countdown's numbers added up, whatever the target."""
    return tagged_answer("tiny", "", "+".join(map(str, record.fields["numbers"])))


def constant_expression(_: Record) -> str:
    """The same sum for every problem of Countdown."""
    return tagged_answer("tiny", "", "1+2*3")


def last_number(record: Record) -> str:
    """The last number of a GSM8K question."""
    numbers = re.findall(r"[0-9][0-9,]*", str(record.fields["question"])) or [""]
    return tagged_answer("tiny", "", numbers[-1].rstrip(","))


def last_formula(record: Record) -> str:
    """The last formula between dollar signs of a MATH problem, as it stands there."""
    formulas = re.findall(r"\$([^$]+)\$", str(record.fields["problem"])) or [""]
    return tagged_answer("tiny", "", f"\\boxed{{{formulas[-1]}}}")


def last_formula_in_parentheses(record: Record) -> str:
    """The last formula of a MATH problem in parentheses: the same letters no longer."""
    formulas = re.findall(r"\$([^$]+)\$", str(record.fields["problem"])) or [""]
    return tagged_answer("tiny", "", f"\\boxed{{({formulas[-1].strip().rstrip('.')})}}")


def three(_: Record) -> str:
    """The same number for every MATH problem, the most frequent answer of MATH-500."""
    return tagged_answer("tiny", "", "\\boxed{3}")


# By task and name; each takes a record and returns a completion.
BASELINES: Mapping[str, Mapping[str, Callable[[Record], str]]] = {
    "sudoku": {
        "all ones": all_ones,
        "random digits": random_digits,
        "copy of the puzzle": copy_of_the_puzzle,
        "row filling": row_filling,
    },
    "countdown": {
        "constant expression": constant_expression,
        "sum of the numbers": sum_of_numbers,
    },
    "gsm8k": {"last number of the question": last_number},
    "math500": {
        "last formula of the question": last_formula,
        "the same in parentheses": last_formula_in_parentheses,
        "always 3": three,
    },
}
