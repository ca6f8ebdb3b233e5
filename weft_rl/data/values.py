"""Values of records as files have them: missing ones, numbers, lists that are spelled as text."""

import ast
import json
import math
from decimal import Decimal


def is_missing(value: object) -> bool:
    """Whether a column has no value in a row: null, NaN, or blank text as in a CSV file."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def plain_number(value: object) -> str:
    """A finite number in digits, 204.0 as 204: a missing value makes floats of a column's whole
    numbers. Empty for all else."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        return ""
    if isinstance(value, int):
        return str(value)
    return format(Decimal(str(value)).normalize(), "f")


def as_list(value: object) -> object:
    """A list; the text of one, in JSON's spelling or Python's, as the list. All else as it is."""
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


def check_unicode(name: str, text: str) -> None:
    """Raise ValueError for text that no file can hold: JSON can spell half a character."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} holds half of a surrogate pair") from error
