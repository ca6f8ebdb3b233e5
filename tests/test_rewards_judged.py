"""Answers that people judged, right and wrong ones of every kind: one verdict each."""

import json
from pathlib import Path

import pytest

from weft_rl.rewards import gsm8k, math500

FIXTURES = Path(__file__).parent / "fixtures"
ROWS = [
    json.loads(line) for line in (FIXTURES / "judged_answers.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['answer']} for {row['key']}")
def test_the_verdict(row):
    if row["task"] == "math500":
        completion = rf"<answer>\boxed{{{row['answer']}}}</answer>"
        assert math500.exact(completion, row["key"]) == row["right"]
    else:
        assert gsm8k.exact(f"<answer>{row['answer']}</answer>", row["key"]) == row["right"]
