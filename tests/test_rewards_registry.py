"""Which rewards train and evaluate a task, and their weights."""

import pytest

from weft_rl.rewards.registry import REWARDS, training


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
