"""MATH: answers equal in text or value, within a limit of time that holds everywhere."""

import json
import time
from pathlib import Path

import pytest

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


def test_copying_the_question_is_no_answer():
    problem = r"Compute $2^{10} + \dfrac{1}{2}$."
    assert exact(boxed(r"2^{10}+\frac{1}{2}"), "1024.5", problem=problem) == 0
    assert exact(boxed(r"2^{10}+\frac{1}{2}"), "1024.5", problem="Another question") == 1
    # unless it is the answer letter by letter
    assert exact(boxed("x^2"), "x^2", problem="Simplify $x^2$.") == 1


POWER, BINOMIAL = "Compute 2^{10}.", r"How many are $\dbinom{8}{4}$ ways?"


@pytest.mark.slow
def test_a_copy_in_another_spelling_is_no_answer():
    for given, answer, problem in [
        *((given, "1024", POWER) for given in ("(2^{10})", "2^10", "2^{10}+0", "0 + 2^{10}")),
        *((given, "1024", POWER) for given in (r"1\cdot 2^{10}", r"\frac{2^{10}}{1}", "x=2^{10}")),
        # whatever is added or done that leaves the value
        *((given, "1024", POWER) for given in ("2^{10}+2-1-1", r"\sqrt{(2^{10})^2}", "-(-2^{10})")),
        *((given, "70", BINOMIAL) for given in (r"\binom{8}{4}", r"\left(\binom{8}{4}\right)-0")),
        (r"4\times3", "12", r"What is $3 \cdot 4$?"),
        *((given, r"\frac34", r"Simplify $\frac{6}{8}$.") for given in ("6/8", r"(\frac68)")),
        ("(1+x)^2", "x^2+2x+1", "Expand $(x+1)^2$."),
        (r"(\gcd(8,12))", "4", r"Find \(\gcd(8,12)\)."),
        (r"\left(4\frac12\right)^2-0", "20.25", r"Square: \[\left(4\tfrac{1}{2}\right)^2\]"),
        ("a+b+c = 0", "0", "Let $a+b+c=0.$ Find $ab$."),
        ("(0+a+b+c = 0)", "0", "Let $a+b+c=0.$ Find $ab$."),
        ("(2x - y) = -3", "y = 2x + 3", "The line is $2x-y=-3$."),
        ("6(1+2i)-3i", "6+9i", "Evaluate $(1+2i)6-3i.$"),
        # in Unicode, in another font or color, between other delimiters
        *((given, "1024", POWER) for given in ("2\u00b9\u2070", r"\mathbf{2^{10}}", r"\(2^{10}\)")),
        *((given, "1024", POWER) for given in (r"{\color{red}2^{10}}", "**2^{10}**", "2**10")),
        *((given, "1024", "Compute 2\u00b9\u2070.") for given in ("2^{10}", "(2\u00b9\u2070)")),
        (r"\mathrm{4}\cdot3", "12", "What is 3 \u00d7 4?"),
        *(("4\u00d73", "12", r"What is $3 \cdot 4$?"), ("\u221a(49)", "7", r"Find $\sqrt{49}$.")),
        (r"\textbf{6/8}", r"\frac34", r"Simplify $\frac{6}{8}$."),
        (r"3 \cdot 4", "12", r"Let $A=\begin{pmatrix} 1 \\ 2 \end{pmatrix}$. Find $3 \cdot 4$."),
        ("6\u20448", r"\frac34", r"Simplify $\frac{6}{8}$."),
    ]:
        assert not is_right(given, answer, problem)
        assert is_right(given, answer, "Another question")


def test_an_answer_that_stands_in_the_question():
    for given, answer, problem in [
        *(("1024.0", "1024", POWER), ("2^{10} = 1024", "1024", POWER), ("(70)", "70", BINOMIAL)),
        ("5.0", "5", "If $y=5$ and $x=y$, find $x$."),
        ("-5.0", "-5", "If $x-5=2y$, which number?"),
        # built as the given answer is, only spelled otherwise
        (r"\left(\sqrt{53}\right)", r"\sqrt{53}", r"What is $\sqrt{53}$ in simplest form?"),
        ("1+2x+x^2", "x^2+2x+1", "Expand $(x+1)^2$."),
        ("(x+1)(x+1)", "x^2+2x+1", "Expand $(x+1)^2$."),
        (r"2\cdot\sqrt{3}", r"2\sqrt3", r"Simplify $\sqrt{12}$."),
        ("0.75", r"\frac34", r"Simplify $\frac{6}{8}$."),
        (
            r"x=3\sqrt5",
            r"3\sqrt{5}",
            r"Let $A=\begin{pmatrix} 1 \\ 2 \end{pmatrix}$. Find $|A|+1$.",
        ),
    ]:
        assert is_right(given, answer, problem)


def test_what_both_state_must_agree():
    for given, answer, right in [
        *(("4343_5", "4343_6", False), ("4343_{6}", "4343_6", True), ("4343", "4343_6", True)),
        *(("(4343)_{5}", "4343_6", False), ("52_8, 4_8", "4_8, 52_8", True)),
        *((r"7\text{ m}", r"7\text{ cm}", False), (r"7\text{ meters}", r"7\mbox{ m}", True)),
        *((r"7\text{ apples}", r"7\text{ fruits}", True), ("7", r"7\text{ cm}", True)),
        *((r"5\text{ cents}", r"\$5", False), (r"7\text{ m in all}", r"7\text{ m}", True)),
        *((r"90\text{ degrees}", r"90^\circ", True), (r"3\text{ hour(s)}", r"3\text{ h}", True)),
        *(("y=2", "x=2", False), ("x = 2", "x=2", True), ("x=y", "y=x", True)),
    ]:
        assert is_right(given, answer) is right


def test_the_limit_holds():
    # each keeps sympy busy for minutes or forever
    for given in ("(x+1)^{100000}", "99999999999999!", r"\binom{10000000}{5000000}"):
        start = time.monotonic()
        assert not is_right(given, "3")
        # processor time is limited, wall time by the second limit; both far below a hang
        assert time.monotonic() - start < WALL_S + 5
    assert is_right("(x+1)^{100000}", "(x + 1)^{100000}")  # by its letters
