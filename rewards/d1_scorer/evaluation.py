r"""Verdicts of d1's published evaluation, in bounded time and without eval.

All tasks read past the end token. Sudoku takes the first <answer>, Countdown rarely reads it, and
`**` and `//` are operators. GSM8K takes the first \boxed{} that holds a number. MATH compares the
text of the last \boxed{} after clean-up.
Source: dllm-reasoning/d1, eval/parse_and_get_acc.py, reimplemented from its behavior."""

import ast
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any

from weft_rl.rewards.arithmetic import Operators, calculate
from weft_rl.rewards.sudoku import cells_right
from weft_rl.rewards.sudoku_grid import CELLS, empty_cells

LONGEST = 32_768  # longest text that is read, several times the length of 512 tokens
# d1's float tolerance. Powers with more bits than (99 ** 99) ** 99 cannot be targets.
_TOLERANCE, _MOST_BITS = 1e-5, 1 << 17

_OPEN, _CLOSE, _BOX = "<answer>", "</answer>", r"\boxed"
_END = re.compile(r"<\|eot_id\|>|<\|endoftext\|>")
_END_OR_CLOSE = re.compile(rf"{_END.pattern}|{_CLOSE}")
_FENCED = re.compile(r"```([\d\s]++)```")
_BEFORE_CLOSE = re.compile(rf"(\d{{16}})\s*+{_CLOSE}")
_SIXTEEN = re.compile(r"\b(\d{16})\b")
# Lookbehind avoids quadratic time on long digit rows.
_EQUATION = re.compile(r"(?<![0-9+\-*/() ])([0-9+\-*/() ]++)=[0-9. ]")
_ALLOWED = re.compile(r"[\d+\-*/().\s]+")
# \d matches digits of every script, as in d1; float() accepts them
_NUMBER = re.compile(r"-?\d+\.?\d*")
_FLAT_BOX = re.compile(r"\\boxed\{([^}]*)\}")

# Order matters: later rules see the output of earlier ones.
_BEFORE_UNITS = (
    *(("\n", ""), (r"\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac")),
    *((r"\left", ""), (r"\right", ""), (r"^{\circ}", ""), (r"^\circ", ""), (r"\$", "")),
)
_AFTER_UNITS = ((r"\%", ""), (" .", " 0."), ("{.", "{0."))


def first_answer(text: str) -> str | None:
    """Content of the first <answer>...</answer>, stripped."""
    inside, closed, _ = text.partition(_OPEN)[2].partition(_CLOSE)
    return inside.strip() if closed else None


def last_box(text: str) -> str | None:
    r"""Return d1's last \boxed: the text if there is none, None if it is unclosed.

    "\boxed " without a brace extends to the next dollar sign; \fbox keeps its wrapping."""
    if f"{_BOX} " in text:
        return text.rpartition(f"{_BOX} ")[2].partition("$")[0]
    start = text.rfind(_BOX)
    if start < 0:
        start = text.rfind(r"\fbox")
    if start < 0:
        return text
    depth = 0
    for brace in re.finditer("[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0 and brace[0] == "}":
            whole = text[start : start + brace.end()]
            opening = f"{_BOX}{{"
            return whole[len(opening) : -1] if whole.startswith(opening) else whole
    return None


def sudoku_answer(text: str) -> str:
    """Return the characters that d1 compares with the grid, without white space; "" if none.

    The first non-blank of: digits in a code fence after <answer>; the first <answer>; the text
    after the first </answer>; 16 digits before a </answer>; any 16-digit word."""
    digits = ("".join(candidate.split()) for candidate in _sudoku_candidates(text[:LONGEST]))
    return next(filter(None, digits), "")


def _sudoku_candidates(text: str) -> Iterator[str]:
    _, opened, inside = text.partition(_OPEN)
    if opened:
        if fenced := _FENCED.search(inside):
            yield fenced[1]
        if end := _END_OR_CLOSE.search(inside):
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
    candidates = (last_box(text), first_answer(text), text)
    text = next(candidate for candidate in candidates if candidate is not None)
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
        return bool(abs(calculate(expression, _OPERATORS) - target) < _TOLERANCE)
    # as in d1, every exception from a malformed expression is a wrong answer
    except (ArithmeticError, SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return False


def _power(base: Any, exponent: Any) -> Any:
    """base ** exponent. Raises OverflowError above _MOST_BITS bits."""
    integers = isinstance(base, int) and isinstance(exponent, int)
    grows = integers and abs(base) > 1 and exponent > 1
    if grows and base.bit_length() * exponent > _MOST_BITS:
        raise OverflowError("the power is too large")
    return base**exponent


_OPERATORS: Operators = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.UAdd: operator.pos},
    **{ast.Mult: operator.mul, ast.Div: operator.truediv, ast.USub: operator.neg},
    **{ast.FloorDiv: operator.floordiv, ast.Pow: _power},
}


def gsm8k_number(completion: str) -> float | None:
    r"""Return the number d1 extracts: the first numeric \boxed{}, else the last in <answer>."""
    text = completion[:LONGEST]
    # only up to a line's last brace, so that time is linear
    lines = (line[: line.rfind("}") + 1] for line in text.split("\n"))
    numbers = (_number(content, 0) for line in lines for content in _FLAT_BOX.findall(line))
    boxed = next((number for number in numbers if number is not None), None)
    return _number(first_answer(text) or "", -1) if boxed is None else boxed


def _number(text: str, at: int) -> float | None:
    """The text as a number, else its first or last number."""
    try:
        return float(text)
    except ValueError:
        numbers = _NUMBER.findall(text)
        return float(numbers[at]) if numbers else None


def gsm8k(completion: str, answer: float | None, **_: Any) -> float:
    """Return 1 if the number d1 extracts equals the answer, else 0; None is never correct."""
    return float(answer is not None and gsm8k_number(completion) == answer)


def math_answer(completion: str) -> str | None:
    r"""Return the text d1 compares: the last \boxed, else all of the text, else <answer>."""
    text = completion[:LONGEST]
    boxed, inside = last_box(text), first_answer(text)
    return boxed if boxed or inside is None else inside


def math500(completion: str, answer: str, **_: Any) -> float:
    """Return 1 if both answers are the same text after d1's clean-up, else 0."""
    given = math_answer(completion)
    return float(given is not None and same_text(given, answer))


def same_text(one: str, other: str) -> bool:
    """Return whether two LaTeX answers match after clean-up, or as raw text if clean-up fails."""
    try:
        return cleaned(one) == cleaned(other)
    except ValueError:
        return one == other


def cleaned(text: str) -> str:
    r"""Normalize LaTeX spelling: \frac12, \tfrac{1}{2} and 1/2 become the same text.

    Raises ValueError where d1 fails: \sqrt or \frac without argument, other slashes, two units."""
    for old, new in _BEFORE_UNITS:
        text = text.replace(old, new)
    text, *units = text.split(r"\text{ ")
    if len(units) > 1:
        raise ValueError("more than one unit")
    for old, new in _AFTER_UNITS:
        text = text.replace(old, new)
    if text.startswith("."):
        text = f"0{text}"
    # "k = 5", but not a name or an equation
    left, equals, right = text.partition("=")
    if equals and "=" not in right and len(left) <= 2:
        text = right
    if re.search(r"\\sqrt(?:\\sqrt|\Z)", text):
        raise ValueError("a root of nothing")
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text)
    text = _braced_fractions(text.replace(" ", ""))
    if text == "0.5":
        return r"\frac{1}{2}"
    if text.count("/") != 1:
        return text
    upper, lower = map(int, text.split("/"))
    return rf"\frac{{{upper}}}{{{lower}}}" if text == f"{upper}/{lower}" else text


def _braced_fractions(text: str) -> str:
    first, *parts = text.split(r"\frac")
    braced = [first]
    for part in parts:
        if not part:
            raise ValueError("a fraction of nothing")
        if part[0] == "{":
            braced.append(part)
        elif len(part) == 1:
            return text
        else:
            lower = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            braced.append(f"{{{part[0]}}}{lower}")
    return r"\frac".join(braced)
