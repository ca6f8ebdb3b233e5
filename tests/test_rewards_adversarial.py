"""Texts made to break or stall a reward: none raises, none takes long."""

import time

import pytest

from weft_rl.rewards import countdown, format, gsm8k, sudoku
from weft_rl.rewards.d1_scorer import math as strict_math
from weft_rl.rewards.d1_scorer import sudoku_countdown as strict_d1
from weft_rl.rewards.registry import REWARDS, training

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
        (sudoku.valid, SUDOKU),
        (gsm8k.exact, {"answer": "#### 5"}),
        (strict_d1.sudoku, SUDOKU),
        (strict_d1.countdown, COUNTDOWN),
        (strict_math.gsm8k, {"answer": 5.0}),
        (strict_math.math500, {"answer": r"\frac{1}{2}"}),
        *((f, {}) for f in (format.tags, format.soft, format.strict)),
        *((f, {}) for f in (format.integer, format.boxed_answer)),
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
    assert {task: list(rewards.evaluation) for task, rewards in REWARDS.items()} == {
        "sudoku": ["cell_accuracy", "exact", "valid"],
        "countdown": ["exact"],
        "gsm8k": ["exact"],
        "math500": ["exact"],
    }
    for task in REWARDS:
        (term,) = training(task).values()
        assert term.weight == 1


@pytest.mark.parametrize(
    ("task", "most"), [("sudoku", 1), ("countdown", 1), ("gsm8k", 4), ("math500", 3)]
)
def test_weights_of_d1(task, most):
    # gsm8k: 2 for being right, and .5 for each of four rewards of form; math500: 2 and 1
    assert sum(term.weight for term in training(task, "d1").values()) == most


def test_a_right_and_well_formed_answer_gets_every_term():
    text = "<reasoning>\nr\n</reasoning>\n<answer>\n{}\n</answer>"
    for task, answer, record in (
        ("gsm8k", "5", {"answer": "#### 5"}),
        ("math500", r"\boxed{x^2}", {"answer": "x^2"}),
    ):
        terms = training(task, "d1").values()
        assert [term.reward(text.format(answer), **record) for term in terms] == [1] * len(terms)
