"""Countdown: exact arithmetic, by hand and against enumeration, and the rewards built on it."""

import operator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.rewards.arithmetic import NotAnExpression, evaluate
from weft_rl.rewards.countdown import exact, reward


def tagged(answer):
    return f"<reasoning>r</reasoning><answer>\n{answer}\n</answer>"


def test_values():
    for text, value, numbers in [
        ("7", 7, [7]),
        ("2*4-3", 5, [2, 4, 3]),  # 8 - 3
        ("2+4*3", 14, [2, 4, 3]),  # the product first
        ("9-4-3", 2, [9, 4, 3]),  # from the left: 5 - 3
        ("24/4/3", 2, [24, 4, 3]),
        ("1/3*3", 1, [1, 3, 3]),  # exact: in floats 0.333.. * 3 rounds
        *(("2-(4-3)", 1, [2, 4, 3]), ("-2*-3", 6, [2, 3]), ("2--3", 5, [2, 3])),
        *((" ( 1 +\n2 ) ", 3, [1, 2]), ("1/2", Fraction(1, 2), [1, 2])),
        (r"2 \times 3 \cdot 4 \div 6", 4, [2, 3, 4, 6]),
        ("2 × 3 · 4 ÷ 6 − 1 – 1", 2, [2, 3, 4, 6, 1, 1]),  # noqa: RUF001 - what models write
        (r"\frac{6}{3} + \dfrac{4 - 2}{2}", 3, [6, 3, 4, 2, 2]),
        *((r"\left(1 + 2\right) \, \times 3", 9, [1, 2, 3]), (r"$1 + 2$", 3, [1, 2])),
        *((r"\(1 + 2\)", 3, [1, 2]), ("007", 7, [7])),
    ]:
        assert evaluate(text) == (value, numbers)


def test_not_an_expression():
    for text in [
        *("", " ", "+", "1+", "*1", "(1", "1)", "()", "1 2", "2(3)", "1.5", "1,000", "x", "+1"),
        *("2**3", "4**2//3", "9**9**9", "4//2", "5%3", "1e3", "0x1", "1=1", "[1]", "1;2"),
        *("1/0", "1/(2-2)", r"\frac{1}{0}", r"\frac12", r"\frac{1}", r"\sqrt{4}", "{1}"),
        *("٣", "²", "1\0", "\ud800", "1" * 10, "(" * 33 + "1" + ")" * 33, "-" * 33 + "1"),
        "1" + "+1" * 128,  # 257 characters
        "__import__('os')",
    ]:
        with pytest.raises(NotAnExpression):
            evaluate(text)


def test_bounds_are_where_they_are_said_to_be():
    for text, value in [
        *(("1" * 9, 111_111_111), ("(" * 32 + "1" + ")" * 32, 1), ("-" * 32 + "1", 1)),
        ("11" + "+1" * 127, 138),  # 256 characters
    ]:
        assert evaluate(text)[0] == value


def test_hand_worked():
    for answer, paid, right in [
        *(("2*4-3", 1, 1), (r"\boxed{2 \times 4 - 3}", 1, 1)),
        ("4*2-3", 1, 1),  # any order
        ("2*4-3=5", 0.1, 1),  # the prompt forbids it, the evaluation lets it pass
        *(("2*4-3=6", 0.1, 0), ("2*4-3=4+1", 0.1, 0), ("2*4-3=5=5", 0.1, 0)),
        ("2+4-3", 0.1, 0),  # 3
        ("4+3-2", 1, 1),
        ("2*4-3+0", 0.1, 0),  # a number that was not given
        ("4+1", 0.1, 0),
        ("(4*3-2)/2", 0.1, 0),  # 5, with the 2 twice
        ("5", 0.1, 0),
        ("24/3", 0.1, 0),  # 24 is no given number
        *(("4**2//3", 0.1, 0), ("9**9**9", 0.1, 0), ("2/(4-4)", 0.1, 0)),
        *(("I do not know", 0.1, 0), ("", 0, 0)),
    ]:
        assert reward(tagged(answer), [2, 3, 4], 5) == paid
        assert exact(tagged(answer), [2, 3, 4], 5) == right
    assert reward("2*4-3", [2, 3, 4], 5) == 0  # no tag, no box
    # each number once counts repetitions
    assert reward(tagged("3+3-1"), [3, 1, 3], 5) == 1
    assert reward(tagged("3+3-1"), [3, 1, 1], 5) == 0.1
    # 1/3 * 3 is 1 exactly; 99/98 is not, though a tolerance of 0.02 would take it
    assert exact(tagged("3*1/3"), [1, 3, 3], 1) == 1
    assert exact(tagged("99/98"), [99, 98], 1) == 0


# Expression trees as nested tuples, written out with every parenthesis.
_TREES = st.recursive(
    st.integers(0, 99), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner), max_leaves=8
)
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def written_and_worth(tree):
    if isinstance(tree, int):
        return str(tree), Fraction(tree)
    (left, one), (right, other) = written_and_worth(tree[0]), written_and_worth(tree[2])
    divides_by_zero = one is None or other is None or (tree[1] == "/" and other == 0)
    value = None if divides_by_zero else OPERATORS[tree[1]](one, other)
    return f"({left}{tree[1]}{right})", value


@settings(deadline=None)
@given(tree=_TREES)
def test_random_trees_against_their_own_values(tree):
    text, value = written_and_worth(tree)
    if value is None:
        with pytest.raises(NotAnExpression):
            evaluate(text)
    else:
        assert evaluate(text)[0] == value
