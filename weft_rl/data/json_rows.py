"""Records of a JSON file: an object per line, an array, or multi-line objects."""

import json
import re
from collections.abc import Collection, Iterator
from itertools import chain
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any

from weft_rl.errors import UserError

LONGEST = 1 << 28  # bytes of a line, far above real ones; bounds memory for a broken file
_LARGEST = 1 << 31  # bytes of an array or of multi-line objects, which are read at once
# Keys of the record list in single-object files: {"version": "1.0", "data": [...]}.
_WRAPPERS = ("data", "records", "rows", "examples")
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as surrogateescape spells them
_OPEN = re.compile(r"[ \t\r\n]*(?:(\[)[ \t\r\n]*(\])?)?[ \t\r\n]*")
_NEXT = re.compile(r"[ \t\r\n]*([],]?)[ \t\r\n]*")
_BLANKS = re.compile(r"[ \t\r\n]*")
_MAX_DIGITS = 4300  # limit of int(); longer numbers stay text
_DECODER = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) < _MAX_DIGITS else digits
)
NOT_UTF8 = "is not UTF-8 text; convert it"


class Place(str):
    """Place of a record in errors: "file:line", "file: record N" or both.

    number: from 1; the record number if known (arrays, Parquet), else the line number."""

    number: int

    def __new__(cls, path: Path, line: int = 0, record: int = 0, note: str = "") -> "Place":
        """Create a place from a line number, a record number or both."""
        parts = [f":{line}" if line else "", f": record {record}" if record else ""]
        place = super().__new__(cls, f"{path}{''.join(parts)}{note and f' ({note})'}")
        place.number = record or line
        return place


Row = tuple[str, dict[str, Any]]  # place and record
# The string is the problem and fix of an unreadable record.
Item = tuple[Place, dict[str, Any] | str]


def json_rows(path: Path, file: Any, columns: Collection[str] | None) -> Iterator[Item]:
    """Yield the objects of an open file; see files.read_items."""
    lines, head, filled = text_lines(path, file), list[str](), list[str]()
    is_array = file.peek(1).lstrip().startswith(b"[")
    while not is_array and len(filled) < 2 and (line := next(lines, "")):
        head.append(line)
        filled += [] if line.isspace() else [line.strip()]
    if not is_array and not _is_document(filled):
        for number, line in enumerate(chain(head, lines), 1):
            if not line.isspace():
                yield Place(path, number), _object(line, columns)
        return
    data = file.read(_LARGEST)
    if len(data) == _LARGEST:
        raise UserError(f"{path}: JSON of more than {_LARGEST >> 30} GiB; write an object per line")
    text = "".join(head) + data.decode("utf-8", "surrogateescape")
    is_broken = is_escaped(text)
    for where, value in _values(path, text):
        yield where, _checked(value, is_broken, columns)


def text_lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Yield lines with non-UTF-8 bytes as surrogates. Raises UserError for one over LONGEST."""
    for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
        if len(line) == LONGEST:
            raise UserError(
                f"{path}:{number}: a record of more than {LONGEST >> 20} MiB; shorten or remove it"
            )
        yield line.decode("utf-8", "surrogateescape")


def is_escaped(text: str) -> bool:
    """Return whether surrogateescape-decoded text holds bytes that are not UTF-8."""
    return not text.isascii() and _ESCAPED.search(text) is not None


def used(row: dict[str, Any], columns: Collection[str] | None) -> dict[str, Any]:
    """Return the entries of a row in `columns`, ignoring case; None selects all."""
    if columns is None:
        return row
    roots = {column.partition(".")[0] for column in columns}
    return {name: value for name, value in row.items() if name.lower() in roots}


def _is_document(head: list[str]) -> bool:
    """Whether a file is one JSON text rather than JSON lines, by its first two lines."""
    errors = [_parsed(line)[1] for line in head]
    if not head or head[0].startswith("[") or errors == [None]:
        return bool(head)
    is_cut = errors[0] is not None and errors[0].pos >= len(head[0])
    return is_cut and len(head) == 2 and errors[1] is not None


def _parsed(line: str) -> tuple[Any, JSONDecodeError | None]:
    try:
        return _DECODER.decode(line), None
    except JSONDecodeError as error:
        return None, error
    except RecursionError:
        return None, JSONDecodeError("nested too deep", line, 0)


def _object(line: str, columns: Collection[str] | None) -> dict[str, Any] | str:
    row, error = _parsed(line)
    if error is None or is_escaped(line):
        return NOT_UTF8 if error else _checked(row, is_escaped(line), columns)
    reason = "text after the object" if error.msg == "Extra data" else error.msg
    return f"not JSON ({reason}, column {error.colno}); fix or remove the line"


def _checked(row: Any, is_broken: bool, columns: Collection[str] | None) -> dict[str, Any] | str:
    """The row or its problem; is_broken: text outside the row is not UTF-8."""
    if not isinstance(row, dict):
        return "must be a JSON object like {...}; fix or remove it"
    if is_broken and is_escaped(json.dumps(used(row, columns), ensure_ascii=False)):
        return NOT_UTF8
    return row


def _values(path: Path, text: str) -> Iterator[tuple[Place, Any]]:
    def not_json(problem: str, at: int) -> UserError:
        problem = problem if at < len(text) else "the file ends too early"
        line = 1 + text.count("\n", 0, at)
        return UserError(f"{path}:{line}: not JSON ({problem}); fix the file")

    start: Any = _OPEN.match(text)
    at, is_array, is_closed = start.end(), bool(start[1]), bool(start[2])
    line, counted, number = 1, 0, 0
    while not is_closed and (is_array or at < len(text)):
        try:
            value, end = _DECODER.raw_decode(text, at)
        except JSONDecodeError as error:
            blanks: Any = _BLANKS.match(text, error.pos)
            raise not_json(error.msg, blanks.end()) from error
        except RecursionError as error:
            raise not_json("nested too deep", at) from error
        line, counted, number = line + text.count("\n", counted, at), at, number + 1
        mark: Any = (_NEXT if is_array else _BLANKS).match(text, end)
        at = mark.end()
        if is_array:
            yield Place(path, line, number), value
            is_closed = mark[1] == "]"
            if not mark[1]:
                raise not_json("no , or ] after a record", at)
        else:
            is_only = number == 1 and at == len(text)
            yield from _unwrapped(path, line, value) if is_only else [(Place(path, line), value)]
    if at < len(text):
        raise not_json("more text after the array", at)


def _unwrapped(path: Path, line: int, value: Any) -> Iterator[tuple[Place, Any]]:
    """Records of one value: its list, pandas columns ({"a": {"0": ...}}), or itself."""
    rows: list[Any] = []
    if isinstance(value, dict):
        lists = [value[key] for key in _WRAPPERS if isinstance(value.get(key), list)]
        rows = next((rows for rows in lists if rows and isinstance(rows[0], dict)), [])
        columns = [column for column in value.values() if isinstance(column, dict)]
        keys = [*columns[0]] if columns and len(columns) == len(value) else []
        if all(key.isdecimal() and all(key in column for column in columns) for key in keys):
            rows = rows or [{name: value[name][key] for name in value} for key in keys]
    if not rows:
        yield Place(path, line), value
    for number, row in enumerate(rows, 1):
        yield Place(path, line, number), row
