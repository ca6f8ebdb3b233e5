"""Scores of policies without a model."""

from statistics import mean

import pytest

from weft_rl.data.records import Record
from weft_rl.data.tasks import REGISTRY, load_records
from weft_rl.evaluation.baselines import BASELINES
from weft_rl.rewards import sudoku
from weft_rl.rewards.registry import REWARDS

PUZZLE = {"puzzle": "4320004330100004", "solution": "4321124334122134"}
NUMBERS = {"numbers": [1, 2, 3], "target": 6}
EGGS = {"question": "Of 1,200 eggs he sells 30, then?", "answer": "30"}
FORMULA = {"problem": "Let $x=2$. Find $x^{10}$.", "answer": "1024"}


ANSWERS = {
    # the rows lack 1; 1 2; 2 4; 1 2 3
    ("sudoku", "row filling"): (PUZZLE, "4321124332141234"),
    ("sudoku", "all ones"): (PUZZLE, "1111111111111111"),
    ("sudoku", "copy of the puzzle"): (PUZZLE, "4320004330100004"),
    ("countdown", "sum of the numbers"): (NUMBERS, "1+2+3"),
    ("gsm8k", "last number of the question"): (EGGS, "30"),
    ("math500", "last formula of the question"): (FORMULA, r"\boxed{x^{10}}"),
    ("math500", "the same in parentheses"): (FORMULA, r"\boxed{(x^{10})}"),
}


def test_answers_by_hand():
    assert list(BASELINES) == list(REWARDS)
    for (task, name), (fields, answer) in ANSWERS.items():
        completion = BASELINES[task][name](Record("x", task, fields))
        assert completion == f"<reasoning></reasoning><answer>{answer}</answer>"


def test_sudoku_scores():
    fields = REGISTRY["sudoku"].generate("test", 1000, 0)
    fields += [record.fields for record in load_records("sudoku", "published")]
    records = [Record("x", "sudoku", each) for each in fields]
    expected = {"all ones": 0.25, "random digits": 0.25, "copy of the puzzle": 0}
    for name, wanted in (expected | {"row filling": 0.48}).items():
        policy = BASELINES["sudoku"][name]
        scores = [sudoku.cell_accuracy(policy(record), **record.fields) for record in records]
        # a puzzle's score has a deviation of about 0.18: 0.02 is four standard errors of 1500
        assert mean(scores) == pytest.approx(wanted, abs=0.02), name
