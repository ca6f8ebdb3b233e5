"""Values of options: types, bounds, conversion from text, and valid values near an invalid one."""

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from math import inf
from types import NoneType
from typing import Any, Literal, get_args, get_origin

_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "above": (operator.gt, "above"),
    "at_least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "at_most": (operator.le, "at most"),
}
# bool is a subclass of int; comparison with infinity rejects NaN and accepts ints of any size
_TYPES: dict[type, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (
        lambda value: isinstance(value, int) and not isinstance(value, bool),
        "an integer in plain digits (not 8.0 or 1e3)",
    ),
    float: (
        lambda value: (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf
        ),
        "a finite number",
    ),
    str: (lambda value: isinstance(value, str) and value.strip() != "", "a nonempty string"),
}
_TRUTH = dict.fromkeys(("true", "yes", "y", "on"), True)
_TRUTH |= dict.fromkeys(("false", "no", "n", "off"), False)
_PARSERS: dict[type, Callable[[str], object]] = {
    bool: lambda text: _TRUTH[text.lower()] if text.lower() in _TRUTH else bool(int(text)),
    int: int,
    float: float,
}
_DIGITS = 18  # longer numbers get no suggestion
_REACH = 64  # integers to try in each direction


def parse(kind: Any, value: Any) -> Any:
    """Convert the text of an option to its type; return other and malformed values unchanged."""
    if NoneType in get_args(kind):
        return None if value in (None, "null") else parse(get_args(kind)[0], value)
    if get_origin(kind) is list:
        if isinstance(value, str):  # the shell may have removed the brackets
            inside = value.strip().removeprefix("[").removesuffix("]")
            value = [part.strip() for part in inside.split(",")] if inside.strip() else []
        inner = get_args(kind)[0]
        return [parse(inner, part) for part in value] if isinstance(value, list) else value
    try:
        if isinstance(value, str) and kind in _PARSERS:
            return _PARSERS[kind](value)
        return float(value) if kind is float and _TYPES[int][0](value) else value
    except (ValueError, OverflowError):
        return value


def rules(kind: Any, bounds: Mapping[str, float]) -> str:
    """Describe the choices or bounds of an option."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else f"{choices[0]}, so far"
    return ", ".join(f"{_BOUNDS[name][1]} {bound}" for name, bound in bounds.items())


def broken_rule(kind: Any, bounds: Mapping[str, float], value: Any) -> str:
    """Describe the violated rule; empty if the value is valid."""
    if get_origin(kind) is Literal:
        return "" if value in get_args(kind) else rules(kind, bounds)
    if NoneType in get_args(kind):
        broken = "" if value is None else broken_rule(get_args(kind)[0], bounds, value)
        return broken and f"{broken}, or null"
    if get_origin(kind) is list:
        fits, name = _TYPES[get_args(kind)[0]]
        if not (isinstance(value, list) and all(map(fits, value))):
            return f"a list like [a,b], each {name}"
        return "" if _within(bounds, len(value)) else f"a list of length {rules(kind, bounds)}"
    fits, name = _TYPES[kind]
    if not fits(value):
        return name
    return "" if _within(bounds, value) else rules(kind, bounds)


def _within(bounds: Mapping[str, float], value: float) -> bool:
    return all(_BOUNDS[name][0](value, bound) for name, bound in bounds.items())


def near_values(kind: Any, bounds: Mapping[str, float], value: Any) -> list[Any]:
    """Return values that may replace an invalid one, nearest first; some are invalid, too."""
    if NoneType in get_args(kind):
        return [*near_values(get_args(kind)[0], bounds, value), None]
    if get_origin(kind) is list:
        inner, parts = get_args(kind)[0], value if isinstance(value, list) else []
        kept = [part for part in parts if not broken_rule(inner, {}, part)]
        return [kept] if kept else []
    if get_origin(kind) is Literal:
        return [choice for choice in get_args(kind) if choice == str(value).strip().lower()]
    number = _number(value) if kind in (int, float) else None
    if number is None:
        return []
    tries: set[float] = {float(number), *map(float, bounds.values())}
    if kind is int:
        tries = {round(number) + step for step in range(-_REACH, _REACH + 1)}
        tries |= {int(end) + step for end in bounds.values() for step in (-1, 0, 1)}
    return sorted(tries, key=lambda each: (abs(Decimal(each) - number), each))


def _number(value: Any) -> Decimal | None:
    """Parse a number; None if it is not finite or too long."""
    if isinstance(value, bool):
        return None
    text = str(value).strip().replace("_", "")
    # 1,000 has a thousands separator; 1,5 a decimal comma
    head, comma, tail = text.partition(",")
    text = text.replace(",", "") if len(tail) >= 3 else f"{head}.{tail}" if comma else text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) <= _DIGITS else None
