"""d1's verdicts: its oddities, and a second opinion on texts made of what its rules look for.

tests/test_score.py has whole stored files with their published verdicts."""

import random

import naive_d1
import pytest

from weft_rl.rewards.d1_scorer import evaluation as d1

PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"


READ = {
    d1.sudoku_answer: [
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
    ],
    d1.countdown_expression: [
        *((r"\boxed{1} \boxed{2 \times 3}", "2 * 3"), (r"\boxed{6 \div 3 \cdot 2}", "6 / 3 * 2")),
        *((r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"), (r"\boxed 1+2$ so", "1+2")),
        (r"\fbox{1+2}", r"\fbox{1+2}"),
        (r"\boxed{1+2 <answer>3+4</answer>", "3+4"),  # never closed
        *((r"\boxed{1+2", r"\boxed{1+2"), (r"\boxed{1+2=3}", "1+2")),
        *(("we try 1+2=3 and 4+5=9", "1+2"), ("so 1+2 = 3", "1+2")),
        ("a = 3, 1+2 = 3", ""),  # the blank before the first = is an expression of its own
        ("<answer>1+2</answer>", "<answer>1+2</answer>"),
    ],
    d1.gsm8k_number: [
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
    ],
    d1.math_answer: [
        *((r"\boxed{1} \boxed{\frac{1}{2}}", r"\frac{1}{2}"), (r"so \boxed 12$ then", "12")),
        *((r"\fbox{3}", r"\fbox{3}"), (r"\boxed{3", None), (r"\boxed{3<answer> 4 </answer>", "4")),
        *((r"\boxed{}<answer> 4 </answer>", "4"), (r"\boxed{}", "")),
        ("<answer>4</answer>", "<answer>4</answer>"),  # the whole text is not empty
        (r"\boxedx{4}", r"\boxedx{4}"),
    ],
}


@pytest.mark.parametrize("reader", READ, ids=lambda reader: reader.__name__)
def test_what_is_read(reader):
    assert [reader(text) for text, _ in READ[reader]] == [answer for _, answer in READ[reader]]
    if reader is d1.gsm8k_number:
        assert all(naive_d1.number(text) == answer for text, answer in READ[reader])


def test_what_scores_nothing():
    for puzzle in ("", "1" * 16, "0" * 15):
        assert d1.sudoku(f"<answer>{SOLUTION}</answer>", puzzle, SOLUTION) == 0
    for text in ("nothing to read", r"\boxed{-10}"):
        assert d1.gsm8k(text, None) == 0
    assert d1.math500(r"\boxed{3", "3") == 0
    assert d1.countdown("<answer>2*4-3</answer>", [2, 3, 4], 5) == 0  # no box, no score
    assert d1.countdown("2*4-3", [2, 3, 4], 5) == 1
    assert d1.countdown(r"\boxed{9**9**9}", [9, 9, 9], 5) == 0
    assert d1.countdown(r"\boxed{300000/299999}", [300000, 299999], 1) == 1  # 3e-6 off


def test_countdown_verdicts():
    right = ["2*4-3", "(2*4)-3", "-(3-2*4)", "+2*4-3", "2*4-3 = 5", "(2*4\n-3)"]
    right += ["2*4-3 = 6"]  # what follows = is cut off unread
    right += ["4**2//3"]  # 16 // 3: both operators pass
    wrong = ["2(4)3", "2,4,3", "2/(4-4)", "9**9**9", "٢*4-3", "2\ud800", ""]
    wrong += ["2*4.-3.0"]  # the 0 counts as a number
    wrong += ["2*4-03", "2*4\n-3"]  # no Python number; a line break ends the expression
    verdicts = {text: d1.countdown(rf"\boxed{{{text}}}", [2, 3, 4], 5) for text in right + wrong}
    assert [text for text, verdict in verdicts.items() if verdict] == right


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
        assert d1.same_text(one, other) == same


# What the rules look for, in any order: most texts of these reach some rare branch.
PIECES = [
    *("\\boxed{", "\\boxed ", "\\fbox{", "\\boxed", "}", "{", "<answer>", "</answer>", "```"),
    *("<|eot_id|>", "<|endoftext|>", "\n", " ", "5", "2*4-3", "(2*4)-3", "=5", "= 6", "-", "."),
    *("\\frac", "\\dfrac12", "\\sqrt", "\\text{ ", "\\%", "\\$", "/", "x", "0.5", ",", "...", "$"),
    *("\\times", "\\div", "4321124334122134", "1234 1234", "432112433412213", "٣", "**", "//"),
    *("1/2", "\\frac{1}{2}", "2", "4", "3", "(", ")", "+", "k=", "\\!", "^\\circ", "00", "1e3"),
]


@pytest.mark.parametrize("seed", range(2))
def test_the_short_way_agrees(seed):
    draw, right = random.Random(seed), 0
    for _ in range(1500):
        text = "".join(draw.choices(PIECES, k=draw.randint(1, 12)))
        if "**" in text and text.count("*") > 4:
            continue  # the short way may take for ever on powers
        truth = draw.choice(["5", r"\frac{1}{2}", "2*4-3", ""])
        cells = round(8 * d1.sudoku(text, PUZZLE, SOLUTION))
        ours = [d1.gsm8k(text, 5.0), d1.math500(text, truth), cells]
        theirs = [naive_d1.gsm8k(text, 5.0), naive_d1.math500(text, truth)]
        theirs.append(naive_d1.sudoku(text, PUZZLE, SOLUTION))
        ours.append(d1.countdown(text, [2, 3, 4], 5))
        theirs.append(naive_d1.countdown(text, [2, 3, 4], 5))
        assert ours == theirs, text
        right += sum(map(bool, theirs))
    assert right > 100  # the texts do reach answers
