"""GSM8K: which number an answer states, and which numbers are the data set's."""

import json
from fractions import Fraction
from pathlib import Path

from weft_rl.rewards.gsm8k import exact, gold, number

GOLD = json.loads((Path(__file__).parent / "fixtures" / "gold_answers.json").read_text("utf-8"))


def test_one_number():
    for text, value in [
        *(("18", 18), (" -5 ", -5), ("\u22125", -5), ("+5", 5), ("1,000", 1000)),
        *((r"\$1{,}000", 1000), (r"385\,000", 385000), ("1000.0", 1000), (".5", Fraction(1, 2))),
        *(("0.1", Fraction(1, 10)), ("1/3", Fraction(1, 3)), (r"\frac{3}{4}", Fraction(3, 4))),
        *((r"-\dfrac{3}{4}", Fraction(-3, 4)), ("3 + 4 = 7", 7), ("x = 18 dollars.", 18)),
        *(("50%", 50), (r"18 \text{ eggs}", 18), ("007", 7), ("- 5", -5), ("minus 5", -5)),
        *(("It is negative 5.", -5), ("\u2013 5", -5), ("-(5)", -5), ("x = - 5", -5)),
        *(("-$5$", -5), (r"- \frac{3}{4}", Fraction(-3, 4)), ("a loss of -5", -5), ("**18**", 18)),
        *(("* 18", 18), (r"90^\circ", 90), ("5-year", 5), ("5 miles/hour", 5)),
        *(("18 (eighteen)", 18), ("5 are left!", 5), (r"\textbf{18}", 18)),
    ]:
        assert number(text) == value


def test_what_is_no_number():
    for text in [
        *("", "none", "18 or 20", "1 2", "1,0000", "10-3", "1e5", "1.2.3", "1/0", "2^3", "5 5"),
        *("٣", "²", "9" * 31, "1" * 100_000, r"\frac{1}{0}", "nan", "inf", "4 = "),
        # an operation
        *("|-5|", r"\sqrt{16}", "sqrt(16)", "\u221a16", "5!", "x^2", "x_2", "5\u00b2", r"5\pi"),
        *("x - 5", "x-5", "5 - x", "5 + x", "x+5", "5*x", "--5", r"x-\frac{3}{4}", r"\pm 5"),
        *("f(5)", r"\log 5", r"\lfloor 5.5\rfloor", r"-\frac{-3}{4}"),
    ]:
        assert number(text) is None


def test_gold():
    for answer, value in [
        *(("He pays 2 * 9 = $<<2*9=18>>18.\n#### 18", 18), ("#### -10", -10)),
        *(("1,234,567", 1234567), (18, 18)),
        (0.1, Fraction(1, 10)),  # not the binary fraction next to it
        *((None, None), ("#### many", None), (float("nan"), None), (1e300, None)),
    ]:
        assert gold(answer) == value


def test_every_gold_answer_is_right_by_itself():
    for answer in GOLD["gsm8k"]:
        for completion in (f"<answer>\n{answer}\n</answer><|eot_id|>", rf"so \boxed{{{answer}}}"):
            assert exact(completion, f"Some steps.\n#### {answer}") == 1


def test_hand_worked():
    for completion, right in [
        ("<reasoning>20</reasoning><answer>18</answer>", 1),
        (r"<answer>\boxed{18}</answer>", 1),
        (r"<answer>18</answer><answer>20</answer>", 0),  # the last word
        ("18", 0),  # no tag, no box
        (r"<answer>17, 18, 19</answer>", 0),
    ]:
        assert exact(completion, "#### 18") == right
