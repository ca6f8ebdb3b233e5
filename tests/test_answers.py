"""MATH: answers that people judged, a sample of benchmarks/answers.py, limits of time."""

import json
import random
import runpy
import time
from pathlib import Path

import pytest
from run_folders import read_lines

from weft_rl.rewards import gsm8k
from weft_rl.rewards.math500 import exact, is_right
from weft_rl.rewards.math_subprocess import WALL_S

ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "answers.py"))
FIXTURES = ROOT / "tests" / "fixtures"
JUDGED = read_lines(FIXTURES / "judged_answers.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("row", JUDGED, ids=lambda row: f"{row['answer']} for {row['key']}")
def test_judged_answers(row):
    """Rows with a `problem` ask whether the answer only copies its formula."""
    if row["task"] == "math500":
        completion = rf"<answer>\boxed{{{row['answer']}}}</answer>"
        assert exact(completion, row["key"], row.get("problem", "")) == row["right"]
    else:
        assert gsm8k.exact(f"<answer>{row['answer']}</answer>", row["key"]) == row["right"]


def test_a_key_is_right_by_itself_and_in_every_spelling():
    boxes = [(rf"<answer>\boxed{{{key}}}</answer>", key) for key in BENCHMARK["keys"]()]
    assert [pair for pair in boxes if exact(*pair) != 1] == []
    pairs = random.Random(0).sample([*BENCHMARK["spelled"]()], 600)
    assert [pair for pair in pairs if not is_right(*pair)] == []


@pytest.mark.slow
def test_a_key_with_a_change_is_wrong():
    misses = BENCHMARK["near_misses"](300, seed=1)
    assert [miss for miss in misses if is_right(*miss[1:])] == []


@pytest.mark.slow
def test_another_key_is_wrong():
    """But for the pairs that benchmarks/results/answers.json lists: one leaves out a unit."""
    results = json.loads((ROOT / "benchmarks/results/answers.json").read_text("utf-8"))
    keys = random.Random(2).sample(BENCHMARK["keys"](), 40)
    equal = [[a, b] for a in keys for b in keys if a < b and is_right(a, b)]
    expected = [pair for pair in results["pairs"]["right"] if {*pair} <= {*keys}]
    assert sorted(equal) == sorted(expected)


def test_a_long_answer_takes_no_time():
    for sentence in (
        "x, what is the least possible value of the sum of all such numbers and their squares?",
        "5 " + "many words that are cut in many ways, " * 7,
        "1500, according to Daniel's theory, how many customers would buy a television that costs",
        *("(" + "a" * 250 + ")+0", "3 m" * 90, "5 m/s/m/s " * 25, "\\text{a} " * 33),
    ):
        start = time.process_time()
        assert not is_right(sentence, "14")
        assert time.process_time() - start < 1


def test_odd_texts_are_wrong():
    for given, answer in [
        *(("", "5"), ("5", ""), ("1,2,3,4,5", "5"), (".", "6"), ("\0", "5"), ("\ud800", "5")),
        *(("5" * 301, "5"), ("{" * 300, "5"), (r"\frac{" * 50, "5"), ("None", "")),
        (r"\{2 million\}", "1"),
    ]:
        assert not is_right(given, answer)
    assert exact("5", "5") == exact(r"<|eot_id|>\boxed{5}", "5") == 0
    assert exact(r"\boxed{5", "5") == 1  # cut short behind its answer


def test_the_limit_holds():
    # each keeps sympy busy for minutes or forever
    for given in ("(x+1)^{100000}", "99999999999999!", r"\binom{10000000}{5000000}"):
        start = time.monotonic()
        assert not is_right(given, "3")
        # processor time is limited, wall time by the second limit; both far below a hang
        assert time.monotonic() - start < WALL_S + 5
    assert is_right("(x+1)^{100000}", "(x + 1)^{100000}")  # by its letters
