"""Valid values near an invalid one, for suggestions in errors."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from itertools import islice
from math import ceil, floor, isfinite
from typing import Any, Literal, get_args, get_origin

_WORDS = {"yes": True, "on": True, "1": True, "no": False, "off": False, "0": False}
_DIGITS = 18  # longer numbers are not corrected
_SEARCHED = 10_000  # candidates on each side
_NAMED = 8  # candidates returned at most


def candidates(kind: Any, bounds: Mapping[str, float], value: Any) -> list[Any]:
    """Values of the right type near an invalid value: converted, then moved into the bounds.

    Most likely first; empty if the value cannot be converted."""
    if type(None) in get_args(kind):
        inner = next(each for each in get_args(kind) if each is not type(None))
        return [*candidates(inner, bounds, value), None]
    if get_origin(kind) is list:
        parts = value if isinstance(value, list) else [value]
        made = [candidates(get_args(kind)[0], {}, part)[:1] for part in parts]
        kept = [part for each in made for part in each]
        return [kept] if kept else []
    if get_origin(kind) is Literal:
        text = str(value).strip().lower()
        return [choice for choice in get_args(kind) if str(choice).lower() == text]
    if kind is bool:
        text = str(value).strip().lower()
        return [_WORDS[text]] if text in _WORDS else []
    if kind is str:
        return [value.strip()] if isinstance(value, str) and value.strip() else []
    if kind not in (int, float):
        return []
    number = _number(value)
    if number is None:
        return []
    return list(_whole(number, bounds) if kind is int else _real(float(number), bounds))


def _number(value: Any) -> Decimal | None:
    """Parse a number; None if it is not a finite number of ordinary size."""
    if isinstance(value, bool):
        return None
    text = str(value).strip().replace("_", "")
    # 1,000 groups digits; 1,5 has a decimal comma
    head, comma, tail = text.partition(",")
    text = text.replace(",", "") if len(tail) >= 3 else f"{head}.{tail}" if comma else text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) <= _DIGITS else None


def _whole(number: Decimal, bounds: Mapping[str, float]) -> Iterator[int]:
    """The nearest integer within the bounds, then its neighbors."""
    low = ceil(bounds["at_least"]) if "at_least" in bounds else None
    if "above" in bounds:
        low = floor(bounds["above"]) + 1
    high = floor(bounds["at_most"]) if "at_most" in bounds else None
    if "below" in bounds:
        high = ceil(bounds["below"]) - 1
    near = round(number)
    near = near if low is None else max(near, low)
    near = near if high is None else min(near, high)
    yield near
    for step in range(1, 64):
        yield from (each for each in (near - step, near + step))


def _real(number: float, bounds: Mapping[str, float]) -> Iterator[float]:
    """The number clipped to its inclusive bounds."""
    for name, beyond in (("at_least", max), ("at_most", min)):
        if name in bounds:
            number = beyond(number, float(bounds[name]))
    if isfinite(number):
        yield number


def nearest_whole(
    value: int, accept: Callable[[int], bool], least: int = 1, most: int | None = None
) -> list[int]:
    """Integers in [least, most] that `accept` accepts, nearest to the value first."""
    value = value if most is None else min(value, most)
    reach = _SEARCHED if most is None else min(_SEARCHED, max(value - least, most - value) + 1)
    near = (
        each
        for step in range(reach)
        for each in dict.fromkeys((value - step, value + step))
        if each >= least and (most is None or each <= most) and accept(each)
    )
    return [*islice(near, _NAMED)]
