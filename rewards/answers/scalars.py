r"""Values of single formulas, exactly; only for math_worker's process.

latex2sympy reads them, with every number hidden behind a name: of 3 and 4 side by side it would
make 7, and of 0.1 a binary fraction. Formulas are compared at points, to hundreds of digits."""

import math
import random
import re
from functools import lru_cache

from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy import Basic, Expr, I, Integer, Pow, Rational, expand, factorial, nan, zoo

from weft_rl.rewards.answers.compare import Relation

_CONFIG = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
_DIGITS, _MANY_DIGITS, _TINY = 50, 400, Rational(1, 10**200)
_POINTS = 2
# A power or factorial beyond these has more digits than any answer.
_LARGEST_EXPONENT, _LARGEST_FACTORIAL = 10_000, 2_000

_FUNCTION = (
    r"\\(?:log|ln|exp|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|lim|max|min)"
)
_FUNCTION_BEFORE = re.compile(rf"{_FUNCTION}(?:[_^]\{{[^{{}}]*\}})*[_^]?$")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_LITERAL = r"-?[0-9.]+"
# A number, or a fraction of numbers, right behind something that has ended.
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
_HIDDEN = re.compile(r"N_\{?([0-9]+)\}?")


def related(key: str, given: str, how: Relation) -> bool:
    """Whether two formulas are equal, or one a multiple of the other."""
    one, other = expression(key), expression(given)
    if one is None or other is None:
        return False
    if one == other:
        return how == "equal" or bool(one.free_symbols)
    if how == "equal":
        return _equal(key, given, one, other)
    ratios = [_ratio(a, b) for a, b in zip(_values(key), _values(given), strict=True)]
    first = ratios[0]
    if first is None or any(r is None or not _close(r, first) for r in ratios):
        return False
    real, imaginary = first.as_real_imag()
    least = Rational(1, 10**30)
    if abs(imaginary) > least:
        return False
    return bool(real > least or (how == "multiple" and real < -least))


def _equal(key: str, given: str, one: Expr, other: Expr) -> bool:
    if one.is_Rational and other.is_Rational:
        return False
    for a, b in zip(_values(key), _values(given), strict=True):
        if a is None or b is None:
            return bool(expand(one - other) == 0)
        if max(abs(a), abs(b)) > _TINY and not _close(a, b):
            return False
    if expand(one - other).is_zero:
        return True
    many = [_values(text, _MANY_DIGITS) for text in (key, given)]
    return all(
        a is not None and b is not None and max(abs(a), abs(b)) > _TINY and _close(a, b, 200)
        for a, b in zip(*many, strict=True)
    )


def _close(one: Expr, other: Expr, digits: int = 40) -> bool:
    """Whether two numbers agree to so many digits, each one's size being 1."""
    return bool(abs(one - other) <= max(abs(one), abs(other)) * Rational(1, 10**digits))


def _ratio(one: Expr | None, other: Expr | None) -> Expr | None:
    if one is None or other is None or abs(other) < _TINY or abs(one) < _TINY:
        return None
    return (one / other).evalf(_DIGITS)


@lru_cache(maxsize=1024)
def _values(text: str, digits: int = _DIGITS) -> list[Expr | None]:
    """The formula's values where its variables have some fixed values; None for no number."""
    formula = expression(text)
    if formula is None:
        return [None] * _POINTS
    found: list[Expr | None] = []
    for point in range(_POINTS):
        values = {name: _somewhere(str(name), point) for name in formula.free_symbols}
        try:
            value = formula.xreplace(values).evalf(digits, maxn=4 * digits)
        except (ArithmeticError, ValueError, TypeError, AttributeError):
            value = nan
        found.append(value if value.is_number and value.is_finite else None)
    return found


def _somewhere(name: str, point: int) -> Rational:
    draw = random.Random(f"{name} {point}")
    sign = -1 if point and draw.random() < 0.5 else 1
    return Rational(sign * draw.randint(10**8, 10**9), 123456789)


@lru_cache(maxsize=1024)
def expression(text: str) -> Expr | None:
    """A formula as sympy has it; None for what cannot be read, and for neighboring numbers."""
    if _UNREADABLE.search(text) or _has_neighbors(text):
        return None
    if text.count(":") == 1:  # a ratio
        text = text.replace(":", "/")
    text = _DIVISOR.sub(_divisor, text)
    text = re.sub(r"(?<=[0-9}]) ?\((?!\Z)", lambda m: _times(text, m), text)
    try:
        found = latex2sympy(
            _NUMBER.sub(_hidden, text), normalization_config=None, conversion_config=_CONFIG
        )
        return _revealed(found) if isinstance(found, Expr) else None
    # whatever a parser raises on the texts of a policy: it is no formula
    except Exception:  # noqa: BLE001
        return None


def _has_neighbors(text: str) -> bool:
    for match in _NEIGHBOR.finditer(text):
        before = text[: match.end()].rstrip()
        if _COMMAND_BEFORE.search(before):
            if _CONSTANT_BEFORE.search(before):
                return True
        elif not _is_function(_group_cut(before)):
            return True
    return False


def _is_function(text: str) -> bool:
    return _FUNCTION_BEFORE.search(text) is not None


def _group_cut(text: str) -> str:
    """Without the group in braces that a text ends with."""
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += (text[at] == "}") - (text[at] == "{")
        if depth == 0:
            return text[:at] if text[at] == "{" else text
    return text


def _times(text: str, match: re.Match[str]) -> str:
    before = text[: match.start()]
    return "(" if _is_function(_group_cut(before)) else r"\cdot("


def _divisor(match: re.Match[str]) -> str:
    return str(getattr(math, match[1])(*map(int, match[2].split(","))))


def _hidden(match: re.Match[str]) -> str:
    whole, _, decimals = match[0].partition(".")
    if not decimals:
        return f" N_{{{whole}}} "
    return rf"\frac{{N_{{{whole}{decimals}}}}}{{N_{{{10 ** len(decimals)}}}}}"


def _revealed(formula: Expr) -> Expr | None:
    """With its numbers in place. None for a power or factorial of too many digits."""
    values: dict[Basic, Basic] = {}
    for symbol in formula.free_symbols:
        hidden = _HIDDEN.fullmatch(str(symbol))
        if hidden:
            values[symbol] = Integer(int(hidden[1]))
        elif str(symbol) == "i":
            values[symbol] = I
    found = _evaluated(formula, values)
    return found if isinstance(found, Expr) else None


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
