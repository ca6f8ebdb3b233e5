"""Records of CSV and Parquet files."""

import csv
import re
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from weft_rl.data.json_rows import LONGEST, NOT_UTF8, Item, Place, is_escaped, used
from weft_rl.data.values import one_line
from weft_rl.errors import UserError

_QUOTED = re.compile('"[^"]*"')
_BATCH = 256  # pyarrow's default of 65,536 long traces takes gigabytes
# Levels that Parquet inserts between a list and its elements.
_LIST_LEVELS = {"list", "element", "item", "array", "bag", "array_element"}


def csv_rows(path: Path, lines: Iterator[str], columns: Collection[str] | None) -> Iterator[Item]:
    """Yield the rows of a CSV file with a header; see files.read_items."""
    csv.field_size_limit(LONGEST)  # the default, 128 KiB, is less than a long trace
    first, skipped = next(lines, ""), 0
    separator = re.fullmatch(r"sep=(.)\s*", first)  # written by spreadsheets
    if separator:
        first, skipped = next(lines, ""), 1
    # most frequent in the header; the suffix decides ties
    delimiters = ",;\t|" if ".csv" in path.name.lower() else "\t,;|"
    delimiter = separator[1] if separator else max(delimiters, key=_QUOTED.sub("", first).count)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    header, names = list[str](), list[str]()
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Place(path, reader.line_num + skipped), f"not CSV ({error}); fix the line"
            continue
        where = Place(path, reader.line_num + skipped)
        row: dict[str, Any] = dict(zip(header, cells, strict=False))
        if cells and not header:
            header = [cell.strip() for cell in cells]
            names = [*used(dict.fromkeys(header), columns)]
            _check_header(where, header, names)
        elif cells and len(cells) != len(header):
            yield where, f"{len(cells)} columns, but the header has {len(header)}; fix the line"
        elif cells:
            yield where, NOT_UTF8 if any(is_escaped(row[name]) for name in names) else row


def _check_header(where: str, header: list[str], names: list[str]) -> None:
    if any(map(is_escaped, header)):
        raise UserError(f"{where}: {NOT_UTF8}")
    for name in names:
        if name and header.count(name) > 1:
            raise UserError(f"{where}: two columns are called {name}; remove one")


class _Unreadable(str):
    """Reason why a cell has no Python value, such as a time beyond the year 9999."""


def parquet_rows(path: Path, opened: IO[bytes], columns: Collection[str] | None) -> Iterator[Item]:
    """Yield the records of an open Parquet file; see files.read_items.

    A cell without a Python value makes its record unusable if its column is used; without
    `columns`, it is dropped and the record's place names it."""
    # keeps --help fast
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(opened) as file:
            names = file.schema_arrow.names
            leaves = (file.schema.column(i).path for i in range(len(file.schema)))
            leaves = [leaf for leaf in leaves if columns is None or _is_used(leaf, columns)]
            for batch in file.iter_batches(_BATCH, columns=leaves):
                cells = [[*map(_value, column)] for column in batch.columns]
                # one record per row even if no column is used
                for values in zip(*cells, strict=True) if cells else [()] * batch.num_rows:
                    number += 1
                    row = dict.fromkeys(names) | dict(zip(batch.schema.names, values, strict=True))
                    bad = {name: row.pop(name) for name in names if type(row[name]) is _Unreadable}
                    problem = "; ".join(f"column {n} cannot be read: {bad[n]}" for n in bad)
                    if problem and columns is not None:
                        where = Place(path, record=number)
                        yield where, f"{problem}; fix or remove the record"
                    else:
                        yield Place(path, record=number, note=problem), row
    except UserError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read as Parquet after record {number} ({one_line(error)}); "
            "write it again"
        ) from error


def _is_used(leaf: str, columns: Collection[str]) -> bool:
    """Whether a path such as messages.list.element.role is in `columns` or below one."""
    root, *levels = leaf.lower().split(".")
    below = [root, *(level for level in levels if level not in _LIST_LEVELS)]
    named = {".".join(below[:depth]) for depth in range(1, len(below) + 1)}
    # a structure may also be stored as text
    is_text = len(below) == 1 and any(column.startswith(f"{root}.") for column in columns)
    return is_text or not named.isdisjoint(columns)


def _value(cell: Any) -> Any:
    import pyarrow

    try:
        return cell.as_py()
    # LookupError: unknown time zone
    except (ValueError, ArithmeticError, LookupError, pyarrow.ArrowException) as error:
        return _Unreadable(one_line(error))
