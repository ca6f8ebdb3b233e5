"""What an option is: a dataclass field with a line of help and a rule that its value must keep."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from math import inf
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

from weft_rl.config.numbers import candidates
from weft_rl.errors import UserError

_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "above": (operator.gt, "above"),
    "at_least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "at_most": (operator.le, "at most"),
}
# bool is a subclass of int; comparing with infinity refuses nan, and takes ints of any size
_TYPES: dict[type, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (
        lambda value: isinstance(value, int) and not isinstance(value, bool),
        "a whole number in plain digits (not 8.0 or 1e3)",
    ),
    float: (
        lambda value: (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf
        ),
        "a finite number",
    ),
    str: (lambda value: isinstance(value, str) and value.strip() != "", "a text, not empty"),
}


def about(text: str, **bounds: float) -> dict[str, Any]:
    """A field's metadata: its line of help and its bounds (above, at_least, below, at_most).

    Bounds of a list are of its length."""
    return {"help": text, "bounds": bounds}


def option(default: Any, text: str, **bounds: float) -> Any:
    """A field with a default and what `about` takes."""
    return field(default=default, metadata=about(text, **bounds))


class BadOption(UserError):
    """A value that an option cannot have: `key=value: rule`, and a value that it may have.

    find: gives values that it may have, the nearest first; usual: its default, alone or not at all.
    """

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
        # here and not before: one that is caught need not search
        better = [each for each in (*self.find(), *self.usual) if each is not MISSING]
        cure = f"; try {shown(better[0])}" if better else ""
        return f"{self.key}={shown(self.value)}: {self.rule}{cure}"


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
    """A value as the command line takes it, on one line of at most 80 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def kinds(schema: type[Any]) -> dict[str, Any]:
    """The type of each field by name."""
    hints = get_type_hints(schema)
    return {item.name: hints[item.name] for item in fields(schema)}


class Leaf(NamedTuple):
    """One option: its type, and its field with default and help."""

    kind: Any
    item: Field[Any]


def leaves(schema: type[Any], prefix: str = "") -> dict[str, Leaf]:
    """Every option by its full key, those of nested blocks included."""
    return dict(_walk(schema, prefix))


def _walk(schema: type[Any], prefix: str) -> Iterator[tuple[str, Leaf]]:
    for item in fields(schema):
        kind = kinds(schema)[item.name]
        if is_dataclass(kind):
            yield from _walk(kind, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, Leaf(kind, item)


def rules(kind: Any, bounds: Mapping[str, float]) -> str:
    """What a field takes beyond its type, in words: its choices or its bounds."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else f"{choices[0]}, so far"
    return ", ".join(f"{_BOUNDS[name][1]} {bound}" for name, bound in bounds.items())


def _broken_rule(kind: Any, bounds: Mapping[str, float], value: Any) -> str:
    """What a value would have to be; empty when it is that."""
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
    """Raise UserError for the first value that is not of its field's type or out of its bounds."""
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
    """Whether a value is of the field's type and within its bounds."""
    return not _broken_rule(kind, item.metadata.get("bounds", {}), value)


@dataclass(frozen=True)
class Block:
    """Options that are checked when they are made; errors name each by its full key."""

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_fields(type(self), vars(self), self.prefix)
