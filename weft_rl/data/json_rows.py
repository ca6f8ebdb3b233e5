"""Records of a JSON file: an object per line, an array, or objects over several lines."""

import codecs
import json
import re
from collections.abc import Collection, Iterator
from itertools import chain
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any, Literal

from weft_rl.errors import UserError

# Bytes of one record, far above real ones: a file of any size takes bounded memory.
LONGEST = 1 << 28
_CHUNK = 1 << 20  # bytes that are decoded at a time of an array
# Keys of the list of records in files that hold one object: {"version": "1.0", "data": [...]}.
_WRAPPERS = ("data", "records", "rows", "examples")
_ESCAPED = re.compile("[\udc80-\udcff]")  # surrogateescape's spelling of bytes that are not UTF-8
_BLANKS = re.compile(r"[ \t\r\n]*")
# An error this near to the end of a part may be of a token that was cut in two, like \ud83d\udca1.
_TOKEN = 16
_DECODER = json.JSONDecoder()
_NOT_OBJECT = "must be a JSON object like {...}; mend or remove it"
_MOST_DIGITS = 4300  # of a text that Python makes an int of
_LENIENT = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) < _MOST_DIGITS else digits
)


class Place(str):
    """Where a record stands, as messages name it: "file:line", "file: record N" or both.

    number: from 1, the record's if it has one (arrays, Parquet), else that of its line."""

    number: int

    def __new__(
        cls, path: Path, line: int | None = None, record: int | None = None, note: str = ""
    ) -> "Place":
        """One of line and record is given, or both."""
        parts = [f":{line}" if line else "", f": record {record}" if record else ""]
        place = super().__new__(cls, f"{path}{''.join(parts)}{note and f' ({note})'}")
        place.number = record or line or 0
        return place


Row = tuple[str, dict[str, Any]]  # a record and its place
# In place of a record that cannot be read: what is wrong with it, and what to do.
Item = tuple[Place, dict[str, Any] | str]
Line = tuple[int, bytes]


def json_rows(path: Path, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Item]:
    """The objects of an open file, as files.read_items yields them."""
    number, text = 1, file.readline(_CHUNK).removeprefix(codecs.BOM_UTF8)
    while text.isspace():
        number, text = number + text.endswith(b"\n"), file.readline(_CHUNK)
    if text.lstrip().startswith(b"["):
        values = _Values(path, file, number, text)
        yield from _checked(_array(path, values), values, columns)
        return
    if not text.endswith(b"\n"):
        text += file.readline(LONGEST)
        if len(text) >= LONGEST:
            raise _too_long(f"{path}:{number}")
    lines = chain([(number, text)] * bool(text), numbered_lines(path, file, number + 1))
    filled = (line for line in lines if not line[1].isspace())
    head = [line for _, line in zip(range(2), filled, strict=False)]
    if _is_document([line for _, line in head]):
        gap = b"\n" * (head[-1][0] - number - 1)
        values = _Values(path, file, number, gap.join(line for _, line in head))
        yield from _checked(_objects(path, values), values, columns)
        return
    for number, line in chain(head, filled):
        yield Place(path, number), _object(line, columns)


def numbered_lines(path: Path, file: IO[bytes], start: int = 1) -> Iterator[Line]:
    """The lines of an open file from here on with their numbers.

    Raises UserError for one longer than LONGEST."""
    for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), start):
        if len(line) == LONGEST:
            raise _too_long(f"{path}:{number}")
        yield number, line


def _too_long(where: str) -> UserError:
    return UserError(f"{where}: a record of more than {LONGEST >> 20} MiB; shorten or remove it")


def is_escaped(text: str) -> bool:
    """Whether text that was decoded with surrogateescape holds bytes that are not UTF-8."""
    return not text.isascii() and _ESCAPED.search(text) is not None


def _is_row_escaped(row: dict[str, Any], columns: Collection[str] | None) -> bool:
    return is_escaped(json.dumps(used(row, columns), ensure_ascii=False))


def used(row: dict[str, Any], columns: Collection[str] | None) -> dict[str, Any]:
    """The part of a row that is in `columns`, in any case; all of it for None."""
    if columns is None:
        return row
    roots = {column.partition(".")[0] for column in columns}
    return {name: value for name, value in row.items() if name.lower() in roots}


def _object(line: bytes, columns: Collection[str] | None) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it."""
    broken = ""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        text, broken = line.decode("utf-8", "surrogateescape"), str(error)
    try:
        row = _decoded(text)
    except (JSONDecodeError, RecursionError) as error:
        return (
            _not_utf8(broken) if broken else f"not JSON ({_reason(error)}); mend or remove the line"
        )
    if not isinstance(row, dict):
        return _NOT_OBJECT
    return _not_utf8(broken) if broken and _is_row_escaped(row, columns) else row


def _decoded(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except JSONDecodeError:
        raise
    except ValueError:  # a number of thousands of digits, in a field that may be unused
        return _LENIENT.decode(text)


def _not_utf8(reason: str) -> str:
    return f"is not UTF-8 text ({reason}); convert it"


def _reason(error: JSONDecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    reason = "more text behind the object" if error.msg == "Extra data" else error.msg
    return f"{reason}, column {error.colno}"


def _is_document(head: list[bytes]) -> bool:
    """Whether a file that begins with these lines, two at most, is one JSON text and not lines."""
    states = [_state(line) for line in head]
    return states == ["whole"] or (states[:1] == ["cut"] and states[1:] in (["cut"], ["broken"]))


def _state(line: bytes) -> Literal["whole", "cut", "broken"]:
    """Whether a line is a JSON value, the beginning of one, or neither."""
    text = line.decode("utf-8", "surrogateescape").strip()
    try:
        _decoded(text)
    except JSONDecodeError as error:
        return "cut" if error.pos >= len(text) else "broken"
    except RecursionError:
        return "broken"
    return "whole"


class _Values:
    """The JSON values of an open file, whose text is decoded by parts."""

    def __init__(self, path: Path, file: IO[bytes], line: int, head: bytes) -> None:
        self._path, self._file, self._line = path, file, line
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._ended = self._decode(head), 0, False
        self.broken = is_escaped(self._text)  # whether any text so far is not UTF-8

    def error(self, problem: str) -> UserError:
        """What is wrong at the current place, after which nothing can be read."""
        return UserError(f"{self._path}:{self._line}: not JSON ({problem}); mend the file")

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self.skip(len(blanks[0]) if blanks else 0)
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self, length: int = 1) -> None:
        """Go on behind the next characters."""
        self._line += self._text.count("\n", self._at, self._at + length)
        self._at += length

    def value(self) -> tuple[int, Any]:
        """The value that begins here, and the number of its line."""
        self.peek()
        while True:
            try:
                value, end = self._decoded()
            except JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterm") or len(self._text) - error.pos < _TOKEN
                if is_cut and self._more():
                    continue
                self.skip(error.pos - self._at)
                raise self.error(error.msg if self.peek() else "the file ends too early") from error
            except RecursionError as error:
                raise self.error(_reason(error)) from error
            length, line = end - self._at, self._line
            if end < len(self._text) or not self._more():  # the rest of a number may follow
                self.skip(length)
                return line, value

    def _decoded(self) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(self._text, self._at)
        except JSONDecodeError:
            raise
        except ValueError:
            return _LENIENT.raw_decode(self._text, self._at)

    def _more(self) -> bool:
        """Read on, twice as much each time that a value is longer; False at the end."""
        rest = self._text[self._at :]
        if len(rest) > LONGEST:
            raise _too_long(f"{self._path}:{self._line}")
        data = b"" if self._ended else self._file.read(max(_CHUNK, len(rest)))
        text = self._decode(data, final=not data)
        self.broken = self.broken or is_escaped(text)
        self._text, self._at, self._ended = rest + text, 0, not data
        return not self._ended


def _array(path: Path, values: _Values) -> Iterator[tuple[Place, Any]]:
    values.peek()
    values.skip()
    number = 0
    mark = values.peek()
    while mark != "]" or number:
        line, value = values.value()
        number += 1
        yield Place(path, line, number), value
        mark = values.peek()
        if mark == "]":
            break
        if mark != ",":
            raise values.error("no , or ] behind a record" if mark else "the file ends too early")
        values.skip()
    values.skip()
    if values.peek():
        raise values.error("more text behind the array; write one array, or one object per line")


def _objects(path: Path, values: _Values) -> Iterator[tuple[Place, Any]]:
    line, value = values.value()
    if not values.peek():
        yield from _unwrapped(path, line, value)
        return
    yield Place(path, line), value
    while values.peek():
        line, value = values.value()
        yield Place(path, line), value


def _unwrapped(path: Path, line: int, value: Any) -> Iterator[tuple[Place, Any]]:
    """The records of a file's only value: a list in it, the rows of columns by pandas' default
    orientation ({"question": {"0": ..., "1": ...}}), or itself."""
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


def _checked(
    rows: Iterator[tuple[Place, Any]], values: _Values, columns: Collection[str] | None
) -> Iterator[Item]:
    """The rows that are objects of text that is UTF-8; of the others what is wrong."""
    for where, row in rows:
        if not isinstance(row, dict):
            yield where, _NOT_OBJECT
        elif values.broken and _is_row_escaped(row, columns):
            yield where, _not_utf8("in one of its columns")
        else:
            yield where, row
