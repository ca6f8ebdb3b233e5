"""Reader of JSON, CSV and Parquet record files, optionally compressed."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePath
from typing import IO, Any

from weft_rl.data.json_rows import Item, Row, json_rows, text_lines
from weft_rl.data.rejects import Reject, fail
from weft_rl.data.tables import csv_rows, parquet_rows
from weft_rl.data.values import one_line
from weft_rl.errors import UserError
from weft_rl.io.safe_files import regular_size

_TABLES = (".csv", ".tsv", ".tab")
RECORD_SUFFIXES = (".jsonl", ".ndjson", ".parquet")  # of the record files in a folder
SUFFIXES = (*RECORD_SUFFIXES, *_TABLES, ".json", ".txt")
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_PARQUET = b"PAR1"


def _open_zstd(file: IO[bytes]) -> IO[bytes]:
    import pyarrow  # keeps --help fast

    return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))


_COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}
_FOREIGN = {
    codecs.BOM_UTF16_LE: "is UTF-16 text; save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "is a zip archive or a workbook; unpack it, or save it as CSV",
    _PARQUET: "is compressed Parquet; unpack it",
}


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a record file without its compression suffix."""
    path = PurePath(name.lower())
    return (path.with_suffix("") if path.suffix in _COMPRESSIONS else path).suffix


def read_rows(
    path: Path, columns: Collection[str] | None = None, reject: Reject = fail
) -> Iterator[Row]:
    """Yield the records of a file with their places; unreadable ones go to `reject`."""
    for where, row in read_items(path, columns):
        if isinstance(row, str):
            reject(UserError(f"{where}: {row}"))
        else:
            yield where, row


def read_items(
    path: Path, columns: Collection[str] | None = None, allow_pipe: bool = False
) -> Iterator[Item]:
    """Yield each record of a file in order with its place, or the problem of an unreadable record.

    Content identifies Parquet, the suffix CSV (.csv, .tsv; commas, semicolons or tabs). Anything
    else is JSON: one object per line, an array, multi-line objects, or an object with a list under
    data, records, rows or examples. gzip, bz2, xz and zstd are unpacked. JSON lines, CSV and
    Parquet are streamed.
    columns: lower-case names to read, nested ones as "messages.role"; None reads all. Other Parquet
    columns are None. allow_pipe: also read a named pipe. Raises UserError for an unreadable file.
    """
    if not (allow_pipe and path.is_fifo()):
        regular_size(path, "name a file that exists")
    number = 0
    try:
        with path.open("rb") as file:
            head = file.peek(len(max(_COMPRESSED, key=len)))
            if head.startswith(_PARQUET) or path.suffix.lower() == ".parquet":
                yield from parquet_rows(path, file, columns)
                return
            openers = [opener for mark, opener in _COMPRESSED.items() if head.startswith(mark)]
            with openers[0](file) if openers else file as text:
                for number, item in enumerate(_text_rows(path, text, columns), 1):  # noqa: B007
                    yield item
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        problem = f"cannot be read after record {number} ({one_line(error)}); copy it again"
        raise UserError(f"{path}: {problem}") from error


def _text_rows(path: Path, file: Any, columns: Collection[str] | None) -> Iterator[Item]:
    head: bytes = file.peek(4)[:4]
    for mark, problem in _FOREIGN.items():
        if head.startswith(mark):
            raise UserError(f"{path}: {problem}")
    if b"\0" in head:
        raise UserError(f"{path}: holds NUL bytes, so it is UTF-16 or not text; save it as UTF-8")
    if head.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    if suffix_of(path.name) in _TABLES:
        yield from csv_rows(path, text_lines(path, file), columns)
    else:
        yield from json_rows(path, file, columns)
