"""Verdicts of d1's published evaluation for Sudoku and Countdown, without eval.

As in d1, a tag counts after an end token, the first <answer> wins, Countdown rarely reads <answer>,
and `**` and `//` are operators.
Source: dllm-reasoning/d1, eval/parse_and_get_acc.py, reimplemented from its behavior."""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weft_rl.rewards.d1_scorer.math import LONGEST, first_answer, last_box
from weft_rl.rewards.sudoku import cells_right
from weft_rl.rewards.sudoku_grid import CELLS, empty_cells

# d1's float tolerance. Powers with more bits than (99 ** 99) ** 99 cannot be targets.
_TOLERANCE, _MOST_BITS = 1e-5, 1 << 17

_OPEN, _CLOSE = "<answer>", "</answer>"
_END = re.compile(r"<\|eot_id\|>|<\|endoftext\|>")
_END_OR_CLOSE = re.compile(rf"{_END.pattern}|{_CLOSE}")
_FENCED = re.compile(r"```([\d\s]++)```")
_BEFORE_CLOSE = re.compile(rf"(\d{{16}})\s*+{_CLOSE}")
_SIXTEEN = re.compile(r"\b(\d{16})\b")
# Lookbehind avoids quadratic time on long digit rows.
_EQUATION = re.compile(r"(?<![0-9+\-*/() ])([0-9+\-*/() ]++)=[0-9. ]")
_ALLOWED = re.compile(r"[\d+\-*/().\s]+")

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def sudoku_answer(text: str) -> str:
    """Return the characters that d1 compares with the grid, without white space; "" if none.

    The first non-blank of: digits in a code fence after <answer>; the first <answer>; the text
    after the first </answer>; 16 digits before a </answer>; any 16-digit word."""
    text = text[:LONGEST]
    digits = ("".join(candidate.split()) for candidate in _sudoku_candidates(text))
    return next(filter(None, digits), "")


def _sudoku_candidates(text: str) -> Iterator[str]:
    _, opened, inside = text.partition(_OPEN)
    if opened:
        fenced = _FENCED.search(inside) if "```" in inside else None
        if fenced:
            yield fenced[1]
        end = _END_OR_CLOSE.search(inside)
        if end:
            yield inside[: end.start()]
    yield _END.split(text.partition(_CLOSE)[2], maxsplit=1)[0]
    for pattern in (_BEFORE_CLOSE, _SIXTEEN):
        if match := pattern.search(text):
            yield match[1]


def sudoku(completion: str, puzzle: str, solution: str, **_: Any) -> float:
    """Return the share of empty cells that d1 counts as correct (padded with 0, cut to 16).

    puzzle, solution: 16 characters each, 0 for empty. Returns 0 for any other length."""
    empty = empty_cells(puzzle)
    if not empty or len(puzzle) != CELLS or len(solution) != CELLS:
        return 0.0
    return cells_right(sudoku_answer(completion), puzzle, solution) / len(empty)


def countdown_expression(text: str) -> str:
    """Return the last box (<answer> if it is unclosed) or the text, cut at "= number"."""
    text = text[:LONGEST]
    boxed = last_box(text)
    if boxed is None:
        inside = first_answer(text)
        text = text if inside is None else inside
    else:
        text = boxed
    for latex, plain in ((r"\div", "/"), (r"\times", "*"), (r"\cdot", "*")):
        text = text.replace(latex, plain)
    equation = _EQUATION.search(text)
    return equation[1].strip() if equation else text


def countdown(completion: str, numbers: Sequence[int], target: int, **_: Any) -> float:
    """Return 1 if d1 accepts the expression (numbers as a multiset, then value), else 0."""
    return float(equals(countdown_expression(completion), numbers, target))


def equals(expression: str, numbers: Sequence[int], target: int) -> bool:
    """Return whether Python arithmetic over the numbers, each used once, equals the target."""
    if len(expression) > LONGEST or not _ALLOWED.fullmatch(expression):
        return False
    try:
        if sorted(map(int, re.findall(r"\d+", expression))) != sorted(numbers):
            return False
        value = _value(ast.parse(expression.strip(), mode="eval").body)
        return bool(abs(value - target) < _TOLERANCE)
    # as in d1, every exception from a malformed expression is a wrong answer
    except (ArithmeticError, SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return False


def _value(node: ast.expr) -> Any:
    sign = 1
    # a loop, because a row of signs may exceed the recursion limit
    while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -sign if isinstance(node.op, ast.USub) else sign
        node = node.operand
    match node:
        case ast.Constant(value=int() | float() as value):
            return sign * value
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return sign * _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _OPERATORS:
            return sign * _OPERATORS[type(kind)](_value(left), _value(right))
    raise TypeError(f"{type(node).__name__} is no arithmetic")


def _power(base: Any, exponent: Any) -> Any:
    """base ** exponent. Raises OverflowError above _MOST_BITS bits."""
    integers = isinstance(base, int) and isinstance(exponent, int)
    grows = integers and abs(base) > 1 and exponent > 1
    if grows and base.bit_length() * exponent > _MOST_BITS:
        raise OverflowError("the power is too large")
    return base**exponent
