"""MATH: answers equal in text or value, within a limit of time that holds everywhere."""

import json
import time
from pathlib import Path

from weft_rl.rewards.math500 import exact, is_right
from weft_rl.rewards.math_subprocess import WALL_S

FIXTURES = Path(__file__).parent / "fixtures"
GOLD = json.loads((FIXTURES / "gold_answers.json").read_text("utf-8"))["math500"]


def boxed(answer):
    return rf"<reasoning>r</reasoning><answer>\boxed{{{answer}}}</answer>"


def test_every_gold_answer_is_right_by_itself():
    assert [answer for answer in GOLD if exact(boxed(answer), answer) != 1] == []


def test_odd_texts_are_wrong():
    for given, answer in [
        *(("", "5"), ("5", ""), ("1,2,3,4,5", "5"), (".", "6"), ("\0", "5"), ("\ud800", "5")),
        *(("5" * 301, "5"), ("{" * 300, "5"), (r"\frac{" * 50, "5"), ("None", "")),
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
