"""A sample of benchmarks/answers.py: right answers in other spellings, wrong ones by a change."""

import json
import random
import runpy
from pathlib import Path

from weft_rl.rewards.math500 import is_right

ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "answers.py"))


def test_a_key_is_right_in_every_spelling():
    pairs = random.Random(0).sample([*BENCHMARK["spelled"]()], 600)
    assert [pair for pair in pairs if not is_right(*pair)] == []


def test_a_key_with_a_change_is_wrong():
    misses = BENCHMARK["near_misses"](400, seed=1)
    assert [miss for miss in misses if is_right(*miss[1:])] == []


def test_another_key_is_wrong():
    """But for the pairs that benchmarks/results/answers.json lists: one leaves out a unit."""
    equal = json.loads((ROOT / "benchmarks/results/answers.json").read_text("utf-8"))["pairs"][
        "right"
    ]
    keys = random.Random(2).sample(BENCHMARK["keys"](), 40)
    found = [[a, b] for a in keys for b in keys if a < b and is_right(a, b)]
    assert sorted(found) == sorted(pair for pair in equal if {*pair} <= {*keys})
