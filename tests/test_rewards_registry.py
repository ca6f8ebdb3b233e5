"""Which rewards train and evaluate a task, and their weights."""

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


def test_terms_of_d1():
    # gsm8k: 2 for being right, and .5 for each of four rewards of form; math500: 2 and 1
    for task, most in (("sudoku", 1), ("countdown", 1), ("gsm8k", 4), ("math500", 3)):
        assert sum(term.weight for term in training(task, "d1").values()) == most
    # a right and well-formed answer gets every term
    text = "<reasoning>\nr\n</reasoning>\n<answer>\n{}\n</answer>"
    right = (("gsm8k", "5", "#### 5"), ("math500", r"\boxed{x^2}", "x^2"))
    for task, answer, key in right:
        terms = training(task, "d1").values()
        assert [term.reward(text.format(answer), answer=key) for term in terms] == [1] * len(terms)
