"""Option fields: dataclass fields with a help text and bounds, and blocks of them."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

from weft_rl.config.values import broken_rule, parse
from weft_rl.errors import UserError
from weft_rl.runs.renamed import flattened

Options = TypeVar("Options")


def about(text: str, **bounds: float) -> dict[str, Any]:
    """Return field metadata: help text and bounds (of a list: of its length)."""
    return {"help": text, "bounds": bounds}


def option(default: Any, text: str, **bounds: float) -> Any:
    """Return a field with a default (MISSING: required), a help text and bounds."""
    metadata = about(text, **bounds)
    if isinstance(default, list):
        return field(default_factory=lambda: [*default], metadata=metadata)
    return field(default=default, metadata=metadata)


class BadOption(UserError):
    """An invalid option value: `key=value: rule; fix`.

    search: whether a valid value of this option is to be searched, as the rule names no fix."""

    def __init__(self, key: str, value: object, rule: str, search: bool = False) -> None:
        super().__init__(f"{key}={shown(value)}: {rule}")
        self.key, self.value, self.rule, self.search = key, value, rule, search


def require(condition: bool, key: str, value: object, rule: str, search: bool = False) -> None:
    """Raise BadOption unless the condition holds."""
    if not condition:
        raise BadOption(key, value, rule, search)


def argument(value: object) -> str:
    """Format a value for the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def shown(value: object) -> str:
    """Format a value for a message, in one line of at most 80 characters."""
    text = argument(value)
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

    @property
    def bounds(self) -> Mapping[str, float]:
        """Bounds of the value, or of a list's length."""
        return self.item.metadata.get("bounds", {})


@cache
def leaves(schema: type[Any], prefix: str = "") -> dict[str, Leaf]:
    """Return all options by full key, including nested blocks."""
    options = {}
    for item in fields(schema):
        kind, key = kinds(schema)[item.name], prefix + item.name
        options |= leaves(kind, f"{key}.") if is_dataclass(kind) else {key: Leaf(kind, item)}
    return options


def defaults(schema: type[Any]) -> dict[str, Any]:
    """Return the default of each option by full key, without required options."""
    tree = {}
    for item in fields(schema):
        value = item.default if item.default_factory is MISSING else item.default_factory()
        if value is not MISSING:
            tree[item.name] = asdict(value) if is_dataclass(value) else value
    return dict(flattened(tree))


def build(schema: type[Options], values: Mapping[str, Any], prefix: str = "") -> Options:
    """Build the dataclass from values or texts by full key. Raises BadOption."""
    nested = {name: kind for name, kind in kinds(schema).items() if is_dataclass(kind)}
    arguments: dict[str, Any] = {
        name: parse(kind, values[prefix + name])
        for name, kind in kinds(schema).items()
        if name not in nested
    }
    _check(schema, arguments, prefix)
    for name, kind in nested.items():
        arguments[name] = build(kind, values, f"{prefix}{name}.")
    return schema(**arguments)


def _check(schema: type[Any], values: Mapping[str, Any], prefix: str) -> None:
    """Raise BadOption for the first value of the wrong type or out of bounds."""
    for item in fields(schema):
        kind = kinds(schema)[item.name]
        if not is_dataclass(kind):
            value, bounds = values[item.name], Leaf(kind, item).bounds
            broken = broken_rule(kind, bounds, value)
            require(not broken, prefix + item.name, value, f"must be {broken}", search=True)


@dataclass(frozen=True)
class Block:
    """A block of options, validated on construction; errors name the full key."""

    prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str = "") -> None:
        """prefix: first part of the keys in a run's options, with a dot at the end."""
        cls.prefix = prefix

    def __post_init__(self) -> None:
        _check(type(self), vars(self), self.prefix)

    def require(self, condition: bool, name: str, rule: str, search: bool = False) -> None:
        """Raise BadOption with the value of an option of this block unless the condition holds."""
        require(condition, self.prefix + name, attrgetter(name)(self), rule, search)
