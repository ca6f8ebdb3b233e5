"""Records of CSV and Parquet files."""

import csv
import re
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from weft_rl.data.json_rows import LONGEST, Item, Line, Place, is_escaped, used
from weft_rl.errors import UserError

_QUOTED = re.compile('"[^"]*"')
# Parquet's records decoded at a time: its default, 65,536 long traces, is gigabytes
_BATCH = 256
# Levels that Parquet has between a list and what is in it.
_LIST_LEVELS = {"list", "element", "item", "array", "bag", "array_element"}


def csv_rows(path: Path, lines: Iterator[Line], columns: Collection[str] | None) -> Iterator[Item]:
    """The rows of a CSV file with a header, as files.read_items yields them."""
    csv.field_size_limit(LONGEST)  # its default of 128 KiB is less than a long trace
    text = (line.decode("utf-8", "surrogateescape") for _, line in lines)
    first, skipped = next(text, "").removeprefix("\ufeff"), 0
    separator = re.fullmatch(r"sep=(.)\s*", first)  # a spreadsheet's own first line
    if separator:
        first, skipped = next(text, ""), 1
    # the most frequent one of the header; that of a single name does not tell
    delimiters = ",;\t|" if ".csv" in path.name.lower() else "\t,;|"
    plain = _QUOTED.sub("", first)
    delimiter = separator[1] if separator else max(delimiters, key=plain.count)
    reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
    header, names = list[str](), list[str]()
    while True:
        try:
            cells, problem = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [], f"not CSV ({error}); mend the line"
        where = Place(path, reader.line_num + skipped)
        if cells and not header:
            header = [cell.strip() for cell in cells]
            names = [*used(dict.fromkeys(header), columns)]
            _check_header(where, header, names)
        elif cells and len(cells) != len(header):
            problem = f"{len(cells)} columns, but the header has {len(header)}; mend the line"
        elif cells:  # empty lines are passed over
            row: dict[str, Any] = dict(zip(header, cells, strict=True))
            if not any(is_escaped(row[name]) for name in names):
                yield where, row
                continue
            problem = "is not UTF-8 text; convert it"
        if problem:
            yield where, problem


def _check_header(where: str, header: list[str], names: list[str]) -> None:
    if any(map(is_escaped, header)):
        raise UserError(f"{where}: is not UTF-8 text; convert it")
    for name in names:
        if name and header.count(name) > 1:
            raise UserError(f"{where}: two columns are called {name}; remove one")


class _Unreadable(str):
    """Why a cell has no value in Python, like a time beyond the year 9999."""


def parquet_rows(path: Path, opened: IO[bytes], columns: Collection[str] | None) -> Iterator[Item]:
    """The records of an open Parquet file, as files.read_items yields them."""
    # imported here: a help text must not wait for it
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(opened) as file:
            names = file.schema_arrow.names
            leaves = (file.schema.column(i).path for i in range(len(file.schema)))
            leaves = [leaf for leaf in leaves if columns is None or _is_used(leaf, columns)]
            for batch in file.iter_batches(_BATCH, columns=leaves):
                cells = [_cells(column) for column in batch.columns]
                # without a column that is used there is still a record for each row
                for values in zip(*cells, strict=True) if cells else [()] * batch.num_rows:
                    number += 1
                    row = dict.fromkeys(names) | dict(zip(batch.schema.names, values, strict=True))
                    yield _readable(path, number, row, columns)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: cannot be read as Parquet after record {number} ({_line(error)}); mend it"
        ) from error


def _is_used(leaf: str, columns: Collection[str]) -> bool:
    """Whether a column's path, like messages.list.element.role, is one of `columns` or below it."""
    root, *levels = leaf.lower().split(".")
    below = [root, *(level for level in levels if level not in _LIST_LEVELS)]
    named = {".".join(below[:depth]) for depth in range(1, len(below) + 1)}
    # a structure may come as text as well
    is_text = len(below) == 1 and any(column.startswith(f"{root}.") for column in columns)
    return is_text or not named.isdisjoint(columns)


def _cells(column: Any) -> list[Any]:
    import pyarrow

    # LookupError: an unknown time zone
    failures = (ValueError, ArithmeticError, LookupError, pyarrow.ArrowException)
    try:
        return column.to_pylist()
    except failures:
        cells = []
        for cell in column:
            try:
                cells.append(cell.as_py())
            except failures as error:
                cells.append(_Unreadable(_line(error)))
        return cells


def _readable(
    path: Path, number: int, row: dict[str, Any], columns: Collection[str] | None
) -> Item:
    """The row, unless a cell that is used has no value. Where it is not known what is used, such a
    cell is left out, which the row's place tells."""
    bad = [name for name, value in row.items() if type(value) is _Unreadable]
    problem = "; ".join(f"column {name} cannot be read: {row[name]}" for name in bad)
    if bad and columns is not None:
        return Place(path, record=number), f"{problem}; mend or remove the record"
    for name in bad:
        del row[name]
    return Place(path, record=number, note=problem), row


def _line(error: Exception) -> str:
    """An error's own words on one line."""
    return " ".join(str(error).split()) or type(error).__name__
