"""d1's published verdicts: whole stored files item by item, its oddities, and a second opinion on
texts made of the pieces that its rules look for."""

import json
import random
from pathlib import Path

import naive_d1
import pytest

from weft_rl.rewards.d1_scorer import math as d1_math
from weft_rl.rewards.d1_scorer import sudoku_countdown as d1_grids

FIXTURES = Path(__file__).parent / "fixtures"
PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"


def verdict(task, row):
    text, truth = row["generation"], row["ground_truth"]
    if task == "sudoku":
        puzzle = row["question"].strip()[-16:]
        return d1_grids.sudoku(text, puzzle, truth) * row["empty_cells"]
    return (
        d1_grids.countdown(text, *truth)
        if task == "countdown"
        else getattr(d1_math, task)(text, truth)
    )


# The sums are published: 11.72 % of 2048 cells, 20.70 %, 69.29 % and 26.0 %.
@pytest.mark.parametrize(
    ("task", "count", "right"),
    [("sudoku", 256, 240), ("countdown", 256, 53), ("gsm8k", 1130, 783), ("math500", 500, 130)],
)
def test_stored_files_item_by_item(task, count, right):
    lines = (FIXTURES / f"{task}_128.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    published = [row.get("d1_correct_cells", row.get("d1_correct")) for row in rows]
    assert [verdict(task, row) for row in rows] == published
    assert (len(rows), sum(published)) == (count, right)


def test_what_sudoku_reads():
    for text, answer in [
        ("<answer>1234</answer>", "1234"),
        ("<answer> 12\n34 </answer><answer>5</answer>", "1234"),  # the first tag
        ("<answer>12|34</answer>", "12|34"),  # other characters keep their place
        ("<answer>use ```\n1234\n4321```</answer>", "12344321"),  # the fence first
        *(("<answer>```x```12</answer>", "```x```12"), ("<answer>12<|eot_id|>34</answer>", "12")),
        ("<answer>12<|endoftext|>34</answer>", "12"),
        ("<answer></answer> 12 <|eot_id|>", "12"),  # behind the tag, if it is empty
        *(("<answer></answer> 12", "12"), (f"so {SOLUTION} </answer>", SOLUTION)),
        (f"so {SOLUTION}, I think", SOLUTION),
        (f"so {SOLUTION}1, I think", ""),  # 17 digits are no 16-digit word
        *(("<answer>cut short", ""), (f"<answer>{SOLUTION}", SOLUTION)),
        (f"<|eot_id|><answer>{SOLUTION}</answer>", SOLUTION),  # an end token ends nothing
        ("nothing", ""),
    ]:
        assert d1_grids.sudoku_answer(text) == answer


@pytest.mark.parametrize("puzzle", ["", "1" * 16, "0" * 15])
def test_sudoku_without_a_usable_puzzle(puzzle):
    assert d1_grids.sudoku(f"<answer>{SOLUTION}</answer>", puzzle, SOLUTION) == 0


def test_what_countdown_reads():
    for text, expression in [
        *((r"\boxed{1} \boxed{2 \times 3}", "2 * 3"), (r"\boxed{6 \div 3 \cdot 2}", "6 / 3 * 2")),
        *((r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"), (r"\boxed 1+2$ so", "1+2")),
        (r"\fbox{1+2}", r"\fbox{1+2}"),
        (r"\boxed{1+2 <answer>3+4</answer>", "3+4"),  # never closed
        *((r"\boxed{1+2", r"\boxed{1+2"), (r"\boxed{1+2=3}", "1+2")),
        *(("we try 1+2=3 and 4+5=9", "1+2"), ("so 1+2 = 3", "1+2")),
        ("a = 3, 1+2 = 3", ""),  # the blank before the first = is an expression of its own
        ("<answer>1+2</answer>", "<answer>1+2</answer>"),
    ]:
        assert d1_grids.countdown_expression(text) == expression


def test_countdown_verdicts():
    for expression, right in [
        ("2*4-3", True),
        ("2*4.-3.0", False),  # the 0 counts as a number
        *(("(2*4)-3", True), ("-(3-2*4)", True), ("+2*4-3", True), ("2*4-3 = 5", True)),
        ("2*4-3 = 6", True),  # what follows = is cut off unread
        ("4**2//3", True),  # 16 // 3: both operators pass
        *(("2(4)3", False), ("2,4,3", False)),
        ("2*4-03", False),  # no Python number
        *(("2/(4-4)", False), ("9**9**9", False)),
        ("2*4\n-3", False),  # a line break ends the expression
        *(("(2*4\n-3)", True), ("٢*4-3", False), ("2\ud800", False), ("", False)),
    ]:
        assert d1_grids.countdown(rf"\boxed{{{expression}}}", [2, 3, 4], 5) == right


def test_countdown_oddities():
    assert d1_grids.countdown("<answer>2*4-3</answer>", [2, 3, 4], 5) == 0  # no box, no score
    assert d1_grids.countdown("2*4-3", [2, 3, 4], 5) == 1
    assert d1_grids.countdown(r"\boxed{9**9**9}", [9, 9, 9], 5) == 0
    assert d1_grids.countdown(r"\boxed{300000/299999}", [300000, 299999], 1) == 1  # 3e-6 off


def test_what_gsm8k_reads():
    for text, read in [
        (r"\boxed{18}", 18),
        (r"\boxed{1} \boxed{2}", 1),  # the first
        (r"\boxed{} \boxed{...} \boxed{x} \boxed{7}", 7),  # the first that holds a number
        (r"\boxed{.5}", 0.5),
        (r"\boxed{\frac{3}{4}}", 3),  # up to the first closing brace
        *((r"\boxed{43,500}", 43), (r"\boxed{-3 degrees}", -3)),
        ("\\boxed{\n5}", None),  # . does not match a line break
        *(("\\boxed{\n5} \\boxed{6}", 6), (r"\boxed{5", None), ("\\boxed{1\\boxed{2}", 1)),
        ("<answer>5 of 12</answer>", 12),  # the last
        *(("<answer>5 of\n12</answer><answer>13</answer>", 12), ("<answer>5", None)),
        (r"\boxed{x}<answer>4</answer>", 4),
        (r"<|endoftext|>\boxed{4}", 4),  # an end token ends nothing
        *((r"\boxed{٣}", 3), (r"\boxed{1_000}", 1000), ("5", None)),
    ]:
        assert d1_math.gsm8k_number(text) == read == naive_d1.number(text)


def test_a_missing_truth_is_never_met():
    assert d1_math.gsm8k("nothing to read", None) == 0
    assert d1_math.gsm8k(r"\boxed{-10}", None) == 0


def test_what_math_reads():
    for text, read in [
        *((r"\boxed{1} \boxed{\frac{1}{2}}", r"\frac{1}{2}"), (r"so \boxed 12$ then", "12")),
        *((r"\fbox{3}", r"\fbox{3}"), (r"\boxed{3", None), (r"\boxed{3<answer> 4 </answer>", "4")),
        *((r"\boxed{}<answer> 4 </answer>", "4"), (r"\boxed{}", "")),
        ("<answer>4</answer>", "<answer>4</answer>"),  # the whole text is not empty
        (r"\boxedx{4}", r"\boxedx{4}"),
    ]:
        assert d1_math.math_answer(text) == read


def test_which_math_answers_are_the_same():
    for one, other, same in [
        *((r"\frac12", r"\dfrac{1}{2}", True), ("0.5", r"\frac{1}{2}", True)),
        *(("1/2", r"\tfrac12", True), (r"\sqrt3", r"\sqrt{3}", True), ("x = 5", "5", True)),
        *(("xyz = 5", "5", False), (r"5\text{ cm}", "5", True)),
        *((r"5\text{ cm}\text{ x}", "5", False), (r"90^\circ", "90", True), (r"12\%", "12", True)),
        *((".5", r"\frac{1}{2}", True), ("1.5", r"\frac{3}{2}", False)),
        (r"3\pi/2", r"3\pi/2", True),  # both fail and are compared as they are
        *((r"3\pi/2", r"3 \pi/2", False), (r"\sqrt", r"\sqrt", True)),
        *((r"\frac", r" \frac", False), (r"\frac1", r"\frac 1", True), ("", "", True)),
    ]:
        assert d1_math.same_text(one, other) == same


def test_math_without_an_answer():
    assert d1_math.math500(r"\boxed{3", "3") == 0


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
            (d1_math.gsm8k(text, 5.0), naive_d1.gsm8k(text, 5.0)),
            (d1_math.math500(text, truth), naive_d1.math500(text, truth)),
            (d1_grids.countdown(text, [2, 3, 4], 5), naive_d1.countdown(text, [2, 3, 4], 5)),
            (
                round(8 * d1_grids.sudoku(text, PUZZLE, SOLUTION)),
                naive_d1.sudoku(text, PUZZLE, SOLUTION),
            ),
        ]
        for ours, theirs in verdicts:
            assert ours == theirs, text
            right += bool(theirs)
    assert right > 100  # the texts do reach answers
