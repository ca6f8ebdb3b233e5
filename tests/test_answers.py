"""Verdicts on answers that people judged, and a sample of benchmarks/answers.py."""

import json
import random
import runpy
from pathlib import Path
from time import process_time

import pytest
from run_folders import read_lines

from weft_rl.rewards import gsm8k, math500
from weft_rl.rewards.math500 import is_right

ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "answers.py"))
FIXTURES = ROOT / "tests" / "fixtures"
JUDGED = read_lines(FIXTURES / "judged_answers.jsonl")


@pytest.mark.parametrize("row", JUDGED, ids=lambda row: f"{row['answer']} for {row['key']}")
def test_judged_answers(row):
    """Rows with a `problem` ask whether the answer only copies its formula."""
    if row["task"] == "math500":
        completion = rf"<answer>\boxed{{{row['answer']}}}</answer>"
        assert math500.exact(completion, row["key"], row.get("problem", "")) == row["right"]
    else:
        assert gsm8k.exact(f"<answer>{row['answer']}</answer>", row["key"]) == row["right"]


def test_a_key_is_right_in_every_spelling():
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
        start = process_time()
        assert not is_right(sentence, "14")
        assert process_time() - start < 1
