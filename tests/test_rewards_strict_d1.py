"""d1's published verdicts: whole stored generation files, item by item, and its oddities."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards.d1_scorer import sudoku_countdown as strict_d1

FIXTURES = Path(__file__).parent / "fixtures"
PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"


def stored(task):
    lines = (FIXTURES / f"{task}_128.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_sudoku_golden_file():
    rows = stored("sudoku")
    for row in rows:
        puzzle = row["question"].strip()[-16:]
        share = strict_d1.sudoku(row["generation"], puzzle, row["ground_truth"])
        assert share * row["empty_cells"] == row["d1_correct_cells"], row["generation"]
    assert len(rows) == 256
    assert sum(row["d1_correct_cells"] for row in rows) == 240  # of 2048: 11.72 %


def test_countdown_golden_file():
    rows = stored("countdown")
    for row in rows:
        numbers, target = row["ground_truth"]
        verdict = strict_d1.countdown(row["generation"], numbers, target)
        assert verdict == row["d1_correct"], row["generation"]
    assert len(rows) == 256
    assert sum(row["d1_correct"] for row in rows) == 53  # 20.70 %


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1234</answer>", "1234"),
        ("<answer> 12\n34 </answer><answer>5</answer>", "1234"),  # the first tag
        ("<answer>12|34</answer>", "12|34"),  # other characters keep their place
        ("<answer>use ```\n1234\n4321```</answer>", "12344321"),  # the fence first
        ("<answer>```x```12</answer>", "```x```12"),
        ("<answer>12<|eot_id|>34</answer>", "12"),
        ("<answer>12<|endoftext|>34</answer>", "12"),
        ("<answer></answer> 12 <|eot_id|>", "12"),  # behind the tag, if it is empty
        ("<answer></answer> 12", "12"),
        (f"so {SOLUTION} </answer>", SOLUTION),
        (f"so {SOLUTION}, I think", SOLUTION),
        (f"so {SOLUTION}1, I think", ""),  # 17 digits are no 16-digit word
        ("<answer>cut short", ""),
        (f"<answer>{SOLUTION}", SOLUTION),
        (f"<|eot_id|><answer>{SOLUTION}</answer>", SOLUTION),  # an end token ends nothing
        ("nothing", ""),
    ],
)
def test_what_sudoku_reads(text, answer):
    assert strict_d1.sudoku_answer(text) == answer


@pytest.mark.parametrize("puzzle", ["", "1" * 16, "0" * 15])
def test_sudoku_without_a_usable_puzzle(puzzle):
    assert strict_d1.sudoku(f"<answer>{SOLUTION}</answer>", puzzle, SOLUTION) == 0


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (r"\boxed{1} \boxed{2 \times 3}", "2 * 3"),
        (r"\boxed{6 \div 3 \cdot 2}", "6 / 3 * 2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed 1+2$ so", "1+2"),
        (r"\fbox{1+2}", r"\fbox{1+2}"),
        (r"\boxed{1+2 <answer>3+4</answer>", "3+4"),  # never closed
        (r"\boxed{1+2", r"\boxed{1+2"),
        (r"\boxed{1+2=3}", "1+2"),
        ("we try 1+2=3 and 4+5=9", "1+2"),
        ("so 1+2 = 3", "1+2"),
        ("a = 3, 1+2 = 3", ""),  # the blank before the first = is an expression of its own
        ("<answer>1+2</answer>", "<answer>1+2</answer>"),
    ],
)
def test_what_countdown_reads(text, expression):
    assert strict_d1.countdown_expression(text) == expression


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("2*4-3", True),
        ("2*4.-3.0", False),  # the 0 counts as a number
        ("(2*4)-3", True),
        ("-(3-2*4)", True),
        ("+2*4-3", True),
        ("2*4-3 = 5", True),
        ("2*4-3 = 6", True),  # what follows = is cut off unread
        ("4**2//3", True),  # 16 // 3: both operators pass
        ("2(4)3", False),
        ("2,4,3", False),
        ("2*4-03", False),  # no Python number
        ("2/(4-4)", False),
        ("9**9**9", False),
        ("2*4\n-3", False),  # a line break ends the expression
        ("(2*4\n-3)", True),
        ("٢*4-3", False),
        ("2\ud800", False),
        ("", False),
    ],
)
def test_countdown_verdicts(expression, right):
    assert strict_d1.countdown(rf"\boxed{{{expression}}}", [2, 3, 4], 5) == right


def test_countdown_oddities():
    assert strict_d1.countdown("<answer>2*4-3</answer>", [2, 3, 4], 5) == 0  # no box, no score
    assert strict_d1.countdown("2*4-3", [2, 3, 4], 5) == 1
    assert strict_d1.countdown(r"\boxed{9**9**9}", [9, 9, 9], 5) == 0
    assert strict_d1.countdown(r"\boxed{300000/299999}", [300000, 299999], 1) == 1  # 3e-6 off


@settings(deadline=None)
@given(text=st.text() | st.text("0123456789+-*/().= ", max_size=30))
def test_any_text_is_between_zero_and_one(text):
    for completion in (text, rf"\boxed{{{text}}}", f"<answer>{text}</answer>"):
        assert 0 <= strict_d1.sudoku(completion, PUZZLE, SOLUTION) <= 1
        assert strict_d1.countdown(completion, [2, 3, 4], 5) in (0, 1)
