r"""Exact values of single formulas; only worker processes import it, because sympy loads slowly.

Names replace numbers before latex2sympy parses: it merges an adjacent 3 and 4 into 7 and makes 0.1
a binary fraction. Formulas are compared at points, to hundreds of digits."""

import math
import random
import re
from functools import lru_cache

from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy import Basic, Expr, I, Pow, Rational, expand, factorial, nan, zoo

from weft_rl.rewards.answers.shapes import Relation

_CONFIG = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
_DIGITS, _MANY_DIGITS, _TINY = 50, 400, Rational(1, 10**200)
_POINTS = 2
# Results of larger powers or factorials have more digits than any answer.
_LARGEST_EXPONENT, _LARGEST_FACTORIAL = 10_000, 2_000

_FUNCTION_BEFORE = re.compile(
    r"\\(?:log|ln|exp|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|lim|max|min)"
    r"(?:[_^]\{[^{}]*\})*[_^]?$"
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_LITERAL = r"-?[0-9.]+"
# A number or fraction directly after a complete term.
_NEIGHBOR = re.compile(
    rf"(?:[0-9] (?=[0-9.])|[)!a-zA-Z'|}}] ?(?=[0-9.])"
    rf"|[0-9)}}!] ?(?=\\frac\{{{_LITERAL}\}}\{{{_LITERAL}\}}))"
)
_COMMAND_BEFORE = re.compile(r"\\[A-Za-z]+ ?$")
_CONSTANT_BEFORE = re.compile(
    r"\\(?:pi|infty|theta|alpha|beta|gamma|delta|lambda|mu|omega|phi|sigma|tau|rho) ?$"
)
_UNREADABLE = re.compile(r"\\text|\\begin|['?=<>&\"#@]|\\ldots|\.\.\.|\\cup|\\cap|\\setminus|\\\\")
_DIVISOR = re.compile(r"\\(gcd|lcm)\(([0-9]{1,30}(?:,[0-9]{1,30})+)\)")
_HIDDEN = re.compile(r"N_\{?([0-9.,{}]+?)\}?")


def related(key: str, given: str, relation: Relation) -> bool:
    """Return whether two formulas are equal, or one is a multiple of the other."""
    one, other = expression(key), expression(given)
    if one is None or other is None:
        return False
    if one == other:
        return relation == "equal" or bool(one.free_symbols)
    if relation == "equal":
        return equal(one, other)
    ratios = [_ratio(a, b) for a, b in zip(_values(one), _values(other), strict=True)]
    first = ratios[0]
    if first is None or any(ratio is None or not _close(ratio, first) for ratio in ratios):
        return False
    (real, imaginary), least = first.as_real_imag(), Rational(1, 10**30)
    is_factor = real > least or (relation == "multiple" and real < -least)
    return bool(is_factor and abs(imaginary) <= least)


def equal(one: Expr, other: Expr) -> bool:
    """Return whether two expressions have the same value at every point."""
    if one.is_Rational and other.is_Rational:
        return one == other
    for a, b in zip(_values(one), _values(other), strict=True):
        if a is None or b is None:
            return bool(expand(one - other) == 0)
        if max(abs(a), abs(b)) > _TINY and not _close(a, b):
            return False
    if expand(one - other).is_zero:
        return True
    return all(
        a is not None and b is not None and max(abs(a), abs(b)) > _TINY and _close(a, b, 200)
        for a, b in zip(_values(one, _MANY_DIGITS), _values(other, _MANY_DIGITS), strict=True)
    )


def _close(one: Expr, other: Expr, digits: int = 40) -> bool:
    return bool(abs(one - other) <= max(abs(one), abs(other)) * Rational(1, 10**digits))


def _ratio(one: Expr | None, other: Expr | None) -> Expr | None:
    if one is None or other is None or abs(other) < _TINY or abs(one) < _TINY:
        return None
    return (one / other).evalf(_DIGITS)


@lru_cache(maxsize=1024)
def _values(formula: Expr, digits: int = _DIGITS) -> list[Expr | None]:
    """Formula values at fixed variable values; None if not finite."""
    values: list[Expr | None] = []
    for point in range(_POINTS):
        variables = {name: _coordinate(str(name), point) for name in formula.free_symbols}
        try:
            value = formula.xreplace(variables).evalf(digits, maxn=4 * digits)
        except (ArithmeticError, ValueError, TypeError, AttributeError):
            value = nan
        values.append(value if value.is_number and value.is_finite else None)
    return values


def _coordinate(name: str, point: int) -> Rational:
    draw = random.Random(f"{name} {point}")
    sign = -1 if point and draw.random() < 0.5 else 1
    return Rational(sign * draw.randint(10**8, 10**9), 123456789)


@lru_cache(maxsize=1024)
def expression(text: str) -> Expr | None:
    """Parse a formula; None if unreadable or if numbers are adjacent."""
    if _UNREADABLE.search(text) or _has_neighbors(text):
        return None
    if text.count(":") == 1:  # ratio
        text = text.replace(":", "/")
    text = _DIVISOR.sub(lambda m: str(getattr(math, m[1])(*map(int, m[2].split(",")))), text)
    text = re.sub(
        r"(?<=[0-9}]) ?\((?!\Z)",
        lambda m: "(" if _ends_in_function(text[: m.start()]) else r"\cdot(",
        text,
    )
    parsed = parse(_NUMBER.sub(_hidden, text))
    return reveal(parsed) if isinstance(parsed, Expr) else None


def parse(text: str) -> Basic | None:
    """Parse a formula with latex2sympy; None on failure."""
    try:
        return latex2sympy(text, normalization_config=None, conversion_config=_CONFIG)
    except Exception:  # noqa: BLE001 - a parser may raise anything on a model's text
        return None


def _has_neighbors(text: str) -> bool:
    for match in _NEIGHBOR.finditer(text):
        before = text[: match.end()].rstrip()
        if _COMMAND_BEFORE.search(before):
            if _CONSTANT_BEFORE.search(before):
                return True
        elif not _ends_in_function(before):
            return True
    return False


def _ends_in_function(text: str) -> bool:
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += (text[at] == "}") - (text[at] == "{")
        if depth == 0:
            text = text[:at] if text[at] == "{" else text
            break
    return _FUNCTION_BEFORE.search(text) is not None


def _hidden(match: re.Match[str]) -> str:
    whole, _, decimals = match[0].partition(".")
    if not decimals:
        return f" N_{{{whole}}} "
    return rf"\frac{{N_{{{whole}{decimals}}}}}{{N_{{{10 ** len(decimals)}}}}}"


def reveal(formula: Basic) -> Expr | None:
    """Substitute the numbers. Returns None if a power or factorial is too large."""
    values: dict[Basic, Basic] = {}
    for symbol in formula.free_symbols:
        if hidden := _HIDDEN.fullmatch(str(symbol)):
            values[symbol] = Rational(re.sub("[,{}]", "", hidden[1]))
        elif str(symbol) == "i":
            values[symbol] = I
    revealed = _evaluated(formula, values)
    return revealed if isinstance(revealed, Expr) else None


def _evaluated(formula: Basic, values: dict[Basic, Basic]) -> Basic | None:
    if not formula.args:
        return values.get(formula, formula)
    args: list[Basic] = []
    for part in formula.args:
        arg = _evaluated(part, values)
        if arg is None or arg in (nan, zoo):
            return None
        args.append(arg)
    if isinstance(formula, Pow) and _is_huge_power(*args):
        return None
    if isinstance(formula, factorial) and _is_beyond(args[0], _LARGEST_FACTORIAL):
        return None
    return formula.func(*args)


def _is_beyond(number: Basic, limit: int) -> bool:
    return isinstance(number, Expr) and number.is_number and bool(abs(number) > limit)


def _is_huge_power(base: Basic, exponent: Basic) -> bool:
    if _is_beyond(exponent, _LARGEST_EXPONENT):
        return True
    if isinstance(base, Rational) and isinstance(exponent, Rational):
        bits = max(abs(base.p).bit_length(), base.q.bit_length()) * abs(exponent)
        return bool(bits > _LARGEST_EXPONENT * 4)
    return False
