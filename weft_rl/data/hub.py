"""Rows of Hub data sets and of `datasets` tables."""

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from weft_rl.data.files import is_file_name
from weft_rl.data.json_rows import Row, used
from weft_rl.data.values import one_line
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def is_hub_id(data: str) -> bool:
    """Return whether a text has the form owner/name and is not a path or file name."""
    is_path = data.startswith((".", "/", "~")) or is_file_name(data)
    return not is_path and data.count("/") == 1


def hub_rows(data: str, name: str, split: str, columns: Collection[str] | None) -> Iterator[Row]:
    """Yield the `columns` of a Hub data set's split. Raises UserError if loading fails.

    data: the option's value, for errors. name: "owner/name" or "owner/name:configuration"."""
    from datasets import load_dataset

    from weft_rl.checkpoints.hub import announce_download

    place, _, configuration = name.partition(":")
    announce_download(place)
    try:
        table = load_dataset(place, configuration or None, split=split)
    # network errors and missing data sets raise many types
    except Exception as error:
        raise UserError(
            f"data={data}: split {split} cannot be loaded from the hub ({one_line(error)[:300]}); "
            "save it as JSONL or Parquet and name the file"
        ) from error
    yield from table_rows(name, table, columns)


def table_rows(name: str, table: "Dataset", columns: Collection[str] | None) -> Iterator[Row]:
    """Yield the `columns` of the records in a `datasets` table, with their places."""
    names = table.column_names
    read = [*used(dict.fromkeys(names), columns)]
    table = table.with_format(None)  # the format may be tensors
    rows: Iterable[dict[str, Any]] = table.select_columns(read) if read else [{}] * len(table)
    number = 0
    try:
        for row in rows:
            number += 1
            yield f"{name}: record {number}", dict.fromkeys(names) | row
    # damaged files raise many types
    except Exception as error:
        raise UserError(
            f"data={name}: cannot be read after record {number} ({one_line(error)}); save it again"
        ) from error
