"""d1's verdicts on GSM8K and MATH: whole stored files, its oddities, and a second opinion on texts
made of the pieces that its rules look for."""

import json
import random
from pathlib import Path

import naive_d1
import pytest

from weft_rl.rewards.d1_scorer import math as strict_math
from weft_rl.rewards.d1_scorer import sudoku_countdown as strict_d1

FIXTURES = Path(__file__).parent / "fixtures"
PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"


def stored(task):
    lines = (FIXTURES / f"{task}_128.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("task", "count", "right"), [("gsm8k", 1130, 783), ("math500", 500, 130)])
def test_golden_file(task, count, right):
    rows = stored(task)
    for row in rows:
        verdict = getattr(strict_math, task)(row["generation"], row["ground_truth"])
        assert verdict == row["d1_correct"], row["generation"]
    assert (len(rows), sum(row["d1_correct"] for row in rows)) == (count, right)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"\boxed{18}", 18),
        (r"\boxed{1} \boxed{2}", 1),  # the first
        (r"\boxed{} \boxed{...} \boxed{x} \boxed{7}", 7),  # the first that holds a number
        (r"\boxed{.5}", 0.5),
        (r"\boxed{\frac{3}{4}}", 3),  # up to the first closing brace
        (r"\boxed{43,500}", 43),
        (r"\boxed{-3 degrees}", -3),
        ("\\boxed{\n5}", None),  # . does not match a line break
        ("\\boxed{\n5} \\boxed{6}", 6),
        (r"\boxed{5", None),
        ("\\boxed{1\\boxed{2}", 1),
        ("<answer>5 of 12</answer>", 12),  # the last
        ("<answer>5 of\n12</answer><answer>13</answer>", 12),
        ("<answer>5", None),
        (r"\boxed{x}<answer>4</answer>", 4),
        (r"<|endoftext|>\boxed{4}", 4),  # an end token ends nothing
        (r"\boxed{٣}", 3),
        (r"\boxed{1_000}", 1000),
        ("5", None),
    ],
)
def test_what_gsm8k_reads(text, read):
    assert strict_math.gsm8k_number(text) == read == naive_d1.number(text)


def test_a_missing_truth_is_never_met():
    assert strict_math.gsm8k("nothing to read", None) == 0
    assert strict_math.gsm8k(r"\boxed{-10}", None) == 0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"\boxed{1} \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"so \boxed 12$ then", "12"),
        (r"\fbox{3}", r"\fbox{3}"),
        (r"\boxed{3", None),
        (r"\boxed{3<answer> 4 </answer>", "4"),
        (r"\boxed{}<answer> 4 </answer>", "4"),
        (r"\boxed{}", ""),
        ("<answer>4</answer>", "<answer>4</answer>"),  # the whole text is not empty
        (r"\boxedx{4}", r"\boxedx{4}"),
    ],
)
def test_what_math_reads(text, read):
    assert strict_math.math_answer(text) == read


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\frac12", r"\dfrac{1}{2}", True),
        ("0.5", r"\frac{1}{2}", True),
        ("1/2", r"\tfrac12", True),
        (r"\sqrt3", r"\sqrt{3}", True),
        ("x = 5", "5", True),
        ("xyz = 5", "5", False),
        (r"5\text{ cm}", "5", True),
        (r"5\text{ cm}\text{ x}", "5", False),
        (r"90^\circ", "90", True),
        (r"12\%", "12", True),
        (".5", r"\frac{1}{2}", True),
        ("1.5", r"\frac{3}{2}", False),
        (r"3\pi/2", r"3\pi/2", True),  # both fail and are compared as they are
        (r"3\pi/2", r"3 \pi/2", False),
        (r"\sqrt", r"\sqrt", True),
        (r"\frac", r" \frac", False),
        (r"\frac1", r"\frac 1", True),
        ("", "", True),
    ],
)
def test_which_math_answers_are_the_same(one, other, same):
    assert strict_math.same_text(one, other) == same


def test_math_without_an_answer():
    assert strict_math.math500(r"\boxed{3", "3") == 0


# What the rules look for, in any order: most texts of these reach some rare branch.
PIECES = [
    *("\\boxed{", "\\boxed ", "\\fbox{", "\\boxed", "}", "{", "<answer>", "</answer>", "```"),
    *("<|eot_id|>", "<|endoftext|>", "\n", " ", "5", "2*4-3", "(2*4)-3", "=5", "= 6", "-", "."),
    *("\\frac", "\\dfrac12", "\\sqrt", "\\text{ ", "\\%", "\\$", "/", "x", "0.5", ",", "...", "$"),
    *("\\times", "\\div", "4321124334122134", "1234 1234", "432112433412213", "٣", "**", "//"),
    *("1/2", "\\frac{1}{2}", "2", "4", "3", "(", ")", "+", "k=", "\\!", "^\\circ", "00", "1e3"),
]


@pytest.mark.parametrize("seed", range(4))
def test_the_short_way_agrees(seed):
    draw = random.Random(seed)
    right = 0
    for _ in range(1500):
        text = "".join(draw.choices(PIECES, k=draw.randint(1, 12)))
        if "**" in text and text.count("*") > 4:
            continue  # the short way may take for ever on powers
        truth = draw.choice(["5", r"\frac{1}{2}", "2*4-3", ""])
        verdicts = [
            (strict_math.gsm8k(text, 5.0), naive_d1.gsm8k(text, 5.0)),
            (strict_math.math500(text, truth), naive_d1.math500(text, truth)),
            (strict_d1.countdown(text, [2, 3, 4], 5), naive_d1.countdown(text, [2, 3, 4], 5)),
            (
                round(8 * strict_d1.sudoku(text, PUZZLE, SOLUTION)),
                naive_d1.sudoku(text, PUZZLE, SOLUTION),
            ),
        ]
        for ours, theirs in verdicts:
            assert ours == theirs, text
            right += bool(theirs)
    assert right > 100  # the texts do reach answers
