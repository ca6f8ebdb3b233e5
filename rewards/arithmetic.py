"""Exact evaluation without eval: integers, + - * /, parentheses, unary minus, LaTeX and Unicode."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import accumulate
from typing import Any

# Bounds on time, memory and stack, far above a Countdown expression.
_LONGEST, _DEEPEST, _MOST_DIGITS = 256, 32, 9

_SPELLINGS = [
    # multiplication; division; minus and en dash
    (re.compile("\\\\(?:times|cdot|ast)|[\u00d7\u00b7\u2219\u22c5\u2217]"), "*"),
    (re.compile("\\\\div|[\u00f7\u2215]"), "/"),
    (re.compile("[\u2212\u2013]"), "-"),
    # sized parentheses, thin spaces, math delimiters
    (re.compile(r"\\left|\\right|\\[,;!()\[\] ]|\$"), ""),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\s+"), " "),
]
_PLAIN = re.compile(r"(?:[-+*/(){} 0-9]|\\frac)*")
_FRACTION = re.compile(r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}")

Value = int | Fraction
Operators = Mapping[type[ast.AST], Callable[..., Any]]
_EXACT: Operators = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul},
    **{ast.Div: Fraction, ast.USub: operator.neg},
}


class NotAnExpression(ValueError):
    """The text is not a supported expression."""


def evaluate(text: str) -> tuple[Value, list[int]]:
    """Return the exact value of an expression and its integers in order. Raises NotAnExpression."""
    if len(text) > _LONGEST:
        raise NotAnExpression(f"longer than {_LONGEST} characters")
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    numbers = re.findall("[0-9]+", text)
    if not _PLAIN.fullmatch(text) or any(len(number) > _MOST_DIGITS for number in numbers):
        raise NotAnExpression("only integers, + - * / and parentheses are supported")
    depths = accumulate((character in "({") - (character in ")}") for character in text)
    if max(depths, default=0) > _DEEPEST or "-" * (_DEEPEST + 1) in text.replace(" ", ""):
        raise NotAnExpression(f"nested deeper than {_DEEPEST}")
    text, count = re.sub(r"\b0+(?=[0-9])", "", text), 1
    while count:  # innermost first; a list keeps each part's parentheses inside it
        text, count = _FRACTION.subn(r"([\1]/[\2])", text)
    try:
        return calculate(text, _EXACT), [*map(int, numbers)]
    except (SyntaxError, TypeError, ZeroDivisionError) as error:
        raise NotAnExpression(str(error)) from error


def calculate(text: str, operators: Operators) -> Any:
    """Return the value of Python arithmetic with the given operators only.

    Raises TypeError for other operators and syntax, and what parsing and the operators raise."""
    return _value(ast.parse(text.strip(), mode="eval").body, operators)


def _value(node: ast.expr, operators: Operators) -> Any:
    signs = []
    while isinstance(node, ast.UnaryOp):  # a loop: a row of signs may exceed the recursion limit
        signs.append(node.op)
        node = node.operand
    match node:
        case ast.Constant(value=int() | float() as value):
            pass
        case ast.List(elts=[inside]):
            value = _value(inside, operators)
        case ast.BinOp(left=left, op=kind, right=right):
            value = _operator(kind, operators)(_value(left, operators), _value(right, operators))
        case _:
            raise TypeError(f"{type(node).__name__} is no arithmetic")
    for sign in signs:
        value = _operator(sign, operators)(value)
    return value


def _operator(node: ast.AST, operators: Operators) -> Callable[..., Any]:
    if type(node) not in operators:
        raise TypeError(f"{type(node).__name__} is no arithmetic")
    return operators[type(node)]
