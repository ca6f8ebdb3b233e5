"""d1's training rewards: the values its own functions gave for whole stored files and made texts.

tests/fixtures/d1_training_rewards.json holds them: by task and reward in the order of the stored
files, and for made texts each with its record."""

import json
import time
from pathlib import Path

import pytest
from run_folders import read_lines

from weft_rl.rewards.registry import training

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = json.loads((FIXTURES / "d1_training_rewards.json").read_text("utf-8"))
TASKS = ("sudoku", "countdown", "gsm8k", "math500")
FORM = "<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>\n"
PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"


def values(task, text, record):
    """Each reward times its weight, as RL adds them up."""
    terms = training(task, "d1_strict").items()
    return {name: term.weight * term.reward(text, **record) for name, term in terms}


def record_of(task, row):
    truth = row["ground_truth"]
    if task == "gsm8k":
        return {"answer": f"so\n#### {truth:.15g}" if isinstance(truth, float) else str(truth)}
    return {
        "sudoku": lambda: {"puzzle": row["question"].strip()[-16:], "solution": truth},
        "countdown": lambda: {"numbers": truth[0], "target": truth[1]},
        "math500": lambda: {"answer": truth, "problem": row["question"]},
    }[task]()


@pytest.mark.parametrize("task", TASKS)
def test_stored_generations_item_by_item(task):
    rows = read_lines(FIXTURES / f"{task}_128.jsonl")
    ours = [values(task, row["generation"], record_of(task, row)) for row in rows]
    assert {name: [row[name] for row in ours] for name in ours[0]} == GOLDEN["stored"][task]


def test_made_texts_item_by_item():
    differing = [
        (task, text, record, ours, theirs)
        for task, text, record, theirs in GOLDEN["texts"]
        if (ours := values(task, text, record)) != theirs
    ]
    assert differing == []
    paid = {(task, name) for task, _, _, row in GOLDEN["texts"] for name in row if row[name] > 0}
    assert len(paid) == 9  # each reward of each task


def test_by_hand():
    for task, text, record, wanted in [
        ("gsm8k", FORM.format("r", "5"), {"answer": "#### 5"}, (2, 0.5, 0.5, 0, 0.5)),
        ("gsm8k", "<reasoning>r</reasoning> <answer>5</answer>", {"answer": "5"}, (2, 0.5, 0, 0.5)),
        ("gsm8k", FORM.format("two\nlines", "5"), {"answer": "5"}, (2, 0.5, 0, 0, 0.5)),
        ("gsm8k", "1,000", {"answer": "#### 1,000"}, (2, 0, 0, 0, 0)),  # no tag is needed
        ("gsm8k", "1000", {"answer": "#### 1,000"}, (0, 0.5, 0, 0, 0)),
        ("gsm8k", "5", {"answer": None}, (0, 0.5, 0, 0, 0)),
        ("gsm8k", "5", {"answer": 5.0}, (2, 0.5, 0, 0, 0)),
        ("math500", r"\boxed{\dfrac12}", {"answer": r"so \boxed{\frac{1}{2}}."}, (2, 0.25)),
        ("math500", r"<answer>\boxed{0.25}</answer>", {"answer": r"\frac{1}{4}"}, (0, 0.75)),
        ("math500", "x", {"answer": "x"}, (2, 0.25)),
        ("math500", r"\boxed{x", {"answer": r"\boxed{x"}, (0, 0.25)),  # d1 would stop here
        ("countdown", "<answer>2**4-3</answer>", {"numbers": [2, 4, 3], "target": 13}, (1,)),
        ("countdown", "<answer>1</answer>", {"numbers": [2, 4, 3], "target": 13}, (0.1,)),
        ("countdown", "<answer>2*4-3", {"numbers": [2, 4, 3], "target": 5}, (0,)),
        ("countdown", f"<answer>{'-' * 2000}5</answer>", {"numbers": [5], "target": 5}, (1,)),
        ("countdown", "<answer>9**9**9</answer>", {"numbers": [9] * 3, "target": 5}, (0.1,)),
        ("countdown", "<answer>1**99**99</answer>", {"numbers": [1, 99, 99], "target": 1}, (1,)),
        ("countdown", "<answer>3+9**-9999</answer>", {"numbers": [3, 9, 9999], "target": 3}, (1,)),
        ("sudoku", f"<answer>{SOLUTION}</answer><answer>4", {}, (1,)),
        ("sudoku", f"<answer>{SOLUTION}</answer><answer>4</answer>", {}, (0,)),
        *(("sudoku", f"<answer>{SOLUTION}", {}, (0,)), ("sudoku", SOLUTION, {}, (0,))),
    ]:
        record = record or {"puzzle": PUZZLE, "solution": SOLUTION}
        found = tuple(values(task, text, record).values())
        assert found == wanted + (0,) * (len(found) - len(wanted))


def test_text_behind_the_answer_costs():
    # 0.001 for each of the 11 characters, once for either spelling of the answer's end
    row = values("gsm8k", FORM.format("r", "5") + "and so on.\n", {"answer": "5"})
    assert row["tags"] == pytest.approx(0.5 - 2 * 0.011)
    assert values("gsm8k", FORM.format("r", "5") + "x" * 1000, {"answer": "5"})["tags"] < -1


def test_time_is_linear_in_the_text():
    long = [
        *("</reasoning><answer>" * 20_000, "<reasoning>" + "</reasoning><answer>" * 20_000),
        *("<reasoning>" + "</reasoning> " * 30_000, "<answer>" * 50_000),
        *("<answer></answer>" * 25_000, "\n</answer>\n" * 40_000),
        *("<answer>" + mark * 300_000 + "5</answer>" for mark in "-( 9"),
    ]
    records = {"sudoku": {"puzzle": PUZZLE, "solution": SOLUTION}, "gsm8k": {"answer": "5"}}
    records |= {"countdown": {"numbers": [5], "target": 5}, "math500": {"answer": "5"}}
    start = time.process_time()
    for task, record in records.items():
        for text in long:
            values(task, text, record)
    assert time.process_time() - start < 10  # under a second; quadratic ones take minutes
