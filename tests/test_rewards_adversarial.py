"""Texts made to break or stall a reward: none raises, none takes long."""

import time

import pytest

from rewards import countdown, strict_d1, sudoku
from rewards.registry import EVALUATION, TRAINING, headline

OPEN, CLOSE, LONG = "<answer>", "</answer>", 1_000_000
SUDOKU = {"puzzle": "4320004330100004", "solution": "4321124334122134"}
EMPTY = {"puzzle": "0" * 16, "solution": None}
COUNTDOWN = {"numbers": [2, 3, 4], "target": 5}

INSIDE = [
    *("", "\0" * LONG, " " * LONG, "9" * LONG, "٣" * LONG, "²³¹", "\ud800" * LONG, "=" * LONG),
    "(" * 100_000 + "1" + ")" * 100_000,
    *("-" * LONG, "9**9**9", "9" + "**9" * 80, "1/" * 120 + "3", "999999999*" * 25 + "9"),
    "1/999999999+" * 20 + "9",
    *("```" * 300_000, "```" + " " * LONG, "```1 " * 200_000, "1 " * 500_000 + "=3", "1=" * LONG),
    *("1234123412341234 " * 60_000, ("1" * 16 + " " * 1000 + "x") * 1000, "\\frac" * 200_000),
    *("\\boxed{" * 140_000, "\\boxed{" + "{" * LONG, "\\boxed{" + "{}" * 500_000, "\\boxed " * 90),
    *("{" * LONG, "$" * LONG, "<|" * 500_000, "-" * 990 + "1", "(" * 400 + "1" + ")" * 400),
]
WHOLE = [OPEN * 120_000, CLOSE * 110_000, (OPEN + CLOSE) * 60_000, "<|endoftext|>" * 80_000]
TEXTS = [*INSIDE, *(OPEN + text + CLOSE for text in INSIDE), *WHOLE]


@pytest.mark.parametrize(
    ("reward", "fields"),
    [
        (sudoku.cell_accuracy, SUDOKU),
        (sudoku.cell_accuracy, EMPTY),
        (sudoku.exact, SUDOKU),
        (countdown.reward, COUNTDOWN),
        (countdown.exact, COUNTDOWN),
        (strict_d1.sudoku, SUDOKU),
        (strict_d1.countdown, COUNTDOWN),
    ],
)
def test_in_range_and_quick(reward, fields):
    start = time.process_time()
    values = [reward(text, **fields) for text in TEXTS]
    taken = time.process_time() - start
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in values)
    # about 70 texts of a megabyte at some ms each; one quadratic search alone takes minutes
    assert taken < 2


def test_every_task_trains_on_and_reports_its_rewards():
    assert {task: list(functions) for task, functions in TRAINING.items()} == {
        "sudoku": ["cell_accuracy"],
        "countdown": ["countdown"],
    }
    assert {task: list(functions) for task, functions in EVALUATION.items()} == {
        "sudoku": ["cell_accuracy", "exact"],
        "countdown": ["exact"],
    }
    assert headline("sudoku") is sudoku.cell_accuracy
    assert headline("countdown") is countdown.exact
