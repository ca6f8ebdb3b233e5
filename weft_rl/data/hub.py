"""Rows of data sets of the hub, and of tables of `datasets`."""

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from weft_rl.data.files import is_file_name
from weft_rl.data.json_rows import Row, used
from weft_rl.data.values import one_line
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def is_hub_id(data: str) -> bool:
    """Whether a text has the form of a hub's owner/name, and not of a path or a file's name."""
    is_path = data.startswith((".", "/", "~")) or is_file_name(data)
    return not is_path and data.count("/") == 1


def hub_rows(data: str, name: str, split: str, columns: Collection[str] | None) -> Iterator[Row]:
    """The records of a data set's split; only `columns` are read.

    data: the option's value, for errors; name: "owner/name" or "owner/name:configuration". Raises
    UserError if it cannot be loaded."""
    from datasets import load_dataset

    from weft_rl.checkpoints.hub import announce_download

    place, _, configuration = name.partition(":")
    announce_download(place)
    try:
        table = load_dataset(place, configuration or None, split=split)
    # a broken network, a missing data set or split makes the library raise almost anything
    except Exception as error:
        raise UserError(
            f"data={data}: split {split} cannot be loaded from the hub ({one_line(error)[:300]}); "
            "save it as JSONL or Parquet and name the file"
        ) from error
    yield from table_rows(name, table, columns)


def table_rows(name: str, table: "Dataset", columns: Collection[str] | None) -> Iterator[Row]:
    """The records of a data set of `datasets` and their places; only `columns` are read."""
    names = table.column_names
    read = [*used(dict.fromkeys(names), columns)]
    table = table.with_format(None)  # it may be set up for tensors
    rows: Iterable[dict[str, Any]] = table.select_columns(read) if read else [{}] * len(table)
    number = 0
    try:
        for row in rows:
            number += 1
            yield f"{name}: record {number}", dict.fromkeys(names) | row
    # a damaged file of a saved data set makes the library raise almost anything
    except Exception as error:
        raise UserError(
            f"data={name}: cannot be read after record {number} ({one_line(error)}); save it again"
        ) from error
