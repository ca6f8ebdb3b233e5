"""What policies without a model score."""

from statistics import mean

import pytest

from weft_rl.data.records import Record
from weft_rl.data.tasks import REGISTRY, load_records
from weft_rl.evaluation.baselines import (
    BASELINES,
    all_ones,
    last_formula,
    last_formula_in_parentheses,
    last_number,
    random_digits,
    row_filling,
    sum_of_numbers,
)
from weft_rl.rewards import countdown, sudoku
from weft_rl.rewards.registry import REWARDS

RECORD = Record("x", "sudoku", {"puzzle": "4320004330100004", "solution": "4321124334122134"})


def test_answers_by_hand():
    # rows lack 1; 1 2; 2 4; 1 2 3
    wanted = "<reasoning></reasoning><answer>4321124332141234</answer>"
    assert row_filling(RECORD) == wanted
    assert "<answer>1111111111111111<" in all_ones(RECORD)
    assert random_digits(RECORD) == random_digits(RECORD)
    numbers = Record("y", "countdown", {"numbers": [1, 2, 3], "target": 6})
    assert "<answer>1+2+3<" in sum_of_numbers(numbers)
    assert countdown.exact(sum_of_numbers(numbers), **numbers.fields) == 1
    asked = Record("z", "gsm8k", {"question": "Of 1,200 eggs he sells 30, then?", "answer": "30"})
    assert "<answer>30<" in last_number(asked)
    asked = Record("z", "math500", {"problem": "Let $x=2$. Find $x^{10}$.", "answer": "1024"})
    assert r"<answer>\boxed{x^{10}}<" in last_formula(asked)
    assert r"<answer>\boxed{(x^{10})}<" in last_formula_in_parentheses(asked)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all ones", 0.25),
        ("random digits", 0.25),
        ("copy of the puzzle", 0),
        ("row filling", 0.48),
    ],
)
def test_what_sudoku_answers_are_worth(name, expected):
    policy = BASELINES["sudoku"][name]
    fields = REGISTRY["sudoku"].generate("test", 1000, 0)
    fields += [record.fields for record in load_records("sudoku", "published")]
    records = [Record("x", "sudoku", each) for each in fields]
    scores = [sudoku.cell_accuracy(policy(record), **record.fields) for record in records]
    # a puzzle's score has a deviation of about 0.18: 0.02 is four standard errors of 1500
    assert mean(scores) == pytest.approx(expected, abs=0.02)


def test_every_task_has_a_baseline():
    assert list(BASELINES) == list(REWARDS)
