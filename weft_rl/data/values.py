"""Values of records as files store them: missing ones, numbers, lists spelled as text."""

import ast
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from weft_rl.config.fields import shown


def is_missing(value: object) -> bool:
    """Whether a column has no value in a row: null, NaN, or blank text as in a CSV file."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def first_of(row: Mapping[str, Any], *names: str) -> Any:
    """The first of some columns that has a value; None without one."""
    return next((row[name] for name in names if not is_missing(row.get(name))), None)


def plain_number(value: object) -> str:
    """A finite number in digits, 204.0 as 204: missing values turn a column of integers into
    floats. Empty for everything else."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        return ""
    if isinstance(value, int):
        return str(value)
    return format(Decimal(str(value)).normalize(), "f")


def as_list(value: object) -> object:
    """A list; the text of one, in JSON or Python, as the list. Everything else unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(parsed, list):
            return parsed
    return value


def require_text(name: str, value: object) -> str:
    """A text that is neither blank nor holds half of a surrogate pair, which JSON can spell but no
    file can hold. Raises ValueError for everything else."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half of a surrogate pair") from error
    return value


def one_line(error: Exception) -> str:
    """An exception's text on one line; its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
