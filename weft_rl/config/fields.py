"""Option fields: dataclass fields with help text and bounds."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from math import inf
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

from weft_rl.config.near_values import candidates
from weft_rl.errors import UserError

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


def about(text: str, **bounds: float) -> dict[str, Any]:
    """Return field metadata: help text and bounds (of a list: of its length)."""
    return {"help": text, "bounds": bounds}


def option(default: Any, text: str, **bounds: float) -> Any:
    """Return a field with a default, a help text and bounds."""
    return field(default=default, metadata=about(text, **bounds))


class BadOption(UserError):
    """An invalid option value: `key=value: rule; try VALUE`.

    find: returns valid values, nearest first; usual: the default value, or empty."""

    def __init__(
        self,
        key: str,
        value: object,
        rule: str,
        find: Callable[[], Sequence[object]] = tuple,
        usual: Sequence[object] = (),
    ) -> None:
        super().__init__(key, value, rule)
        self.key, self.value, self.rule, self.find, self.usual = key, value, rule, find, usual

    def __str__(self) -> str:
        # search lazily: most of these errors are caught
        better = [each for each in (*self.find(), *self.usual) if each is not MISSING]
        fix = f"; try {shown(better[0])}" if better else ""
        return f"{self.key}={shown(self.value)}: {self.rule}{fix}"


def require(
    condition: bool,
    key: str,
    value: object,
    rule: str,
    find: Callable[[], Sequence[object]] = tuple,
) -> None:
    """Raise BadOption unless the condition holds."""
    if not condition:
        raise BadOption(key, value, rule, find)


def shown(value: object) -> str:
    """Format a value for the command line, in one line of at most 80 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def kinds(schema: type[Any]) -> dict[str, Any]:
    """Return the type of each field by name."""
    hints = get_type_hints(schema)
    return {item.name: hints[item.name] for item in fields(schema)}


class Leaf(NamedTuple):
    """An option: type and dataclass field."""

    kind: Any
    item: Field[Any]


def leaves(schema: type[Any], prefix: str = "") -> dict[str, Leaf]:
    """Return all options by full key, including nested blocks."""
    return dict(_walk(schema, prefix))


def _walk(schema: type[Any], prefix: str) -> Iterator[tuple[str, Leaf]]:
    for item in fields(schema):
        kind = kinds(schema)[item.name]
        if is_dataclass(kind):
            yield from _walk(kind, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, Leaf(kind, item)


def rules(kind: Any, bounds: Mapping[str, float]) -> str:
    """Describe the choices or bounds of a field."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else f"{choices[0]}, so far"
    return ", ".join(f"{_BOUNDS[name][1]} {bound}" for name, bound in bounds.items())


def _broken_rule(kind: Any, bounds: Mapping[str, float], value: Any) -> str:
    """Describe the violated rule; empty if the value is valid."""
    if get_origin(kind) is Literal:
        return "" if value in get_args(kind) else rules(kind, bounds)
    if type(None) in get_args(kind):
        broken = "" if value is None else _broken_rule(get_args(kind)[0], bounds, value)
        return broken and f"{broken}, or null"
    if get_origin(kind) is list:
        fits, name = _TYPES[get_args(kind)[0]]
        if not (isinstance(value, list) and all(map(fits, value))):
            return f"a list like [a,b], each {name}"
        inside = _within(bounds, len(value))
        return "" if inside else f"a list of length {rules(kind, bounds)}"
    fits, name = _TYPES[kind]
    if not fits(value):
        return name
    return "" if _within(bounds, value) else rules(kind, bounds)


def _within(bounds: Mapping[str, float], value: float) -> bool:
    return all(_BOUNDS[name][0](value, bound) for name, bound in bounds.items())


def check_fields(schema: type[Any], values: Mapping[str, Any], prefix: str) -> None:
    """Raise UserError for the first value of the wrong type or out of bounds."""
    for item in fields(schema):
        if not is_dataclass(kinds(schema)[item.name]):
            _check_field(item, kinds(schema)[item.name], values[item.name], prefix)


def _check_field(item: Field[Any], kind: Any, value: Any, prefix: str) -> None:
    bounds = item.metadata.get("bounds", {})
    broken = _broken_rule(kind, bounds, value)
    if not broken:
        return

    def find() -> list[object]:
        return [near for near in candidates(kind, bounds, value) if fits(item, kind, near)]

    default = item.default if item.default_factory is MISSING else item.default_factory()
    usual = [] if get_origin(kind) is Literal else [default]
    raise BadOption(prefix + item.name, value, f"must be {broken}", find, usual)


def fits(item: Field[Any], kind: Any, value: Any) -> bool:
    """Return whether a value has the field's type and is within its bounds."""
    return not _broken_rule(kind, item.metadata.get("bounds", {}), value)


@dataclass(frozen=True)
class Block:
    """A block of options, validated on construction; errors name the full key."""

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_fields(type(self), vars(self), self.prefix)
