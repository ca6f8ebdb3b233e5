"""Values in record files: missing values, numbers, lists stored as text."""

import ast
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from weft_rl.config.fields import shown


def is_missing(value: object) -> bool:
    """Return whether a value is missing: null, NaN or blank text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def first_of(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first non-missing value among the columns, or None."""
    return next((row[name] for name in names if not is_missing(row.get(name))), None)


def plain_number(value: object) -> str:
    """Format a finite number without a trailing .0 (integer columns may be floats); else empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, float | Decimal) or not math.isfinite(value):
        return ""
    return format(Decimal(str(value)).normalize(), "f")


def as_list(value: object) -> object:
    """Return a list, parsing JSON or Python text; other values are unchanged."""
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
    """Return a non-blank text without lone surrogates, which no file can store; else ValueError."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {shown(value)}")
    return require_unicode(name, value)


def require_unicode(name: str, value: object) -> str:
    """Return a text without lone surrogates, which no tokenizer can read; else ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half of a surrogate pair") from error
    return value


def one_line(error: Exception) -> str:
    """Return the reason of an exception on one line, or its type name if empty."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
