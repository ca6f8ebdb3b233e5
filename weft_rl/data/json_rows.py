"""Records of a JSON file: an object per line, an array, or multi-line objects."""

import json
import re
from collections.abc import Collection, Iterator
from itertools import chain
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any, Literal

from weft_rl.errors import UserError

LONGEST = 1 << 28  # bytes of a line, far above real ones; bounds memory for a broken file
_LARGEST = 1 << 31  # bytes of an array or of multi-line objects, which are read at once
# Keys of the record list in single-object files: {"version": "1.0", "data": [...]}.
_WRAPPERS = ("data", "records", "rows", "examples")
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as surrogateescape spells them
_BLANKS = re.compile(r"[ \t\r\n]*")
_MAX_DIGITS = 4300  # limit of int(); longer numbers stay text
_DECODER = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) < _MAX_DIGITS else digits
)
_NOT_UTF8 = "is not UTF-8 text; convert it"


class Place(str):
    """Place of a record in errors: "file:line", "file: record N" or both.

    number: from 1; the record number if known (arrays, Parquet), else the line number."""

    number: int

    def __new__(
        cls, path: Path, line: int | None = None, record: int | None = None, note: str = ""
    ) -> "Place":
        """Create a place from a line number, a record number or both."""
        parts = [f":{line}" if line else "", f": record {record}" if record else ""]
        place = super().__new__(cls, f"{path}{''.join(parts)}{note and f' ({note})'}")
        place.number = record or line or 0
        return place


Row = tuple[str, dict[str, Any]]  # place and record
# The string is the problem and fix of an unreadable record.
Item = tuple[Place, dict[str, Any] | str]


def json_rows(path: Path, file: Any, columns: Collection[str] | None) -> Iterator[Item]:
    """Yield the objects of an open file; see files.read_items."""
    lines, head = text_lines(path, file), list[str]()
    is_document = file.peek(1).lstrip().startswith(b"[")
    if not is_document:
        head = _head(lines)
        is_document = _is_document([line.strip() for line in head if not line.isspace()])
    if not is_document:
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


def _head(lines: Iterator[str]) -> list[str]:
    head, filled = list[str](), 0
    for line in lines:
        head.append(line)
        filled += not line.isspace()
        if filled == 2:
            break
    return head


def _is_document(head: list[str]) -> bool:
    """Whether a file is one JSON text rather than JSON lines, by its first two lines."""
    states = [_state(line) for line in head]
    is_cut = states[:1] == ["cut"] and states[1:] in (["cut"], ["broken"])
    return is_cut or states == ["complete"] or (bool(head) and head[0].startswith("["))


def _state(line: str) -> Literal["complete", "cut", "broken"]:
    try:
        _DECODER.decode(line)
    except JSONDecodeError as error:
        return "cut" if error.pos >= len(line) else "broken"
    except RecursionError:
        return "broken"
    return "complete"


def _object(line: str, columns: Collection[str] | None) -> dict[str, Any] | str:
    try:
        row = _DECODER.decode(line)
    except JSONDecodeError as error:
        reason = "text after the object" if error.msg == "Extra data" else error.msg
        problem = f"not JSON ({reason}, column {error.colno}); fix or remove the line"
        return _NOT_UTF8 if is_escaped(line) else problem
    except RecursionError:
        return "not JSON (nested too deep); fix or remove the line"
    return _checked(row, is_escaped(line), columns)


def _checked(row: Any, is_broken: bool, columns: Collection[str] | None) -> dict[str, Any] | str:
    """The row or its problem; is_broken: text outside the row is not UTF-8."""
    if not isinstance(row, dict):
        return "must be a JSON object like {...}; fix or remove it"
    if is_broken and is_escaped(json.dumps(used(row, columns), ensure_ascii=False)):
        return _NOT_UTF8
    return row


def _values(path: Path, text: str) -> Iterator[tuple[Place, Any]]:
    def skip_blanks(begin: int) -> int:
        blanks = _BLANKS.match(text, begin)
        return blanks.end() if blanks else begin

    def not_json(problem: str, at: int) -> UserError:
        line = 1 + text.count("\n", 0, at)
        return UserError(f"{path}:{line}: not JSON ({problem}); fix the file")

    begin, counted, line, number = skip_blanks(0), 0, 1, 0
    is_array = text.startswith("[", begin)
    begin = skip_blanks(begin + 1) if is_array else begin
    while is_array or begin < len(text):
        if is_array and not number and text[begin : begin + 1] == "]":
            break
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except JSONDecodeError as error:
            at = skip_blanks(error.pos)
            problem = error.msg if at < len(text) else "the file ends too early"
            raise not_json(problem, at) from error
        except RecursionError as error:
            raise not_json("nested too deep", begin) from error
        line, counted, number = line + text.count("\n", counted, begin), begin, number + 1
        begin = skip_blanks(end)
        if not is_array:
            is_only = number == 1 and begin == len(text)
            yield from _unwrapped(path, line, value) if is_only else [(Place(path, line), value)]
            continue
        yield Place(path, line, number), value
        mark = text[begin : begin + 1]
        if mark == "]":
            break
        if mark != ",":
            problem = "no , or ] after a record" if mark else "the file ends too early"
            raise not_json(problem, begin)
        begin = skip_blanks(begin + 1)
    if is_array and skip_blanks(begin + 1) < len(text):
        raise not_json("more text after the array", skip_blanks(begin + 1))


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
    numbered = ((Place(path, line, number), row) for number, row in enumerate(rows, 1))
    yield from numbered if rows else [(Place(path, line), value)]
