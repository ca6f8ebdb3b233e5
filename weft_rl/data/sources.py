"""Sources of records: files, folders, saved data sets and the Hub."""

import json
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weft_rl.data.files import RECORD_SUFFIXES, SUFFIXES, read_rows, require_regular, suffix_of
from weft_rl.data.json_rows import Row, used
from weft_rl.data.rejects import Reject
from weft_rl.data.values import one_line
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


class Published(NamedTuple):
    """A named Hub data set and the number of records to use."""

    hub: str
    num_records: int | None = None
    below_tokens: int | None = None


# Cold-start sets of the WeFT paper, which gives neither tokenizer nor seed for the third.
PUBLISHED = {
    "s1k": Published("simplescaling/s1K"),
    "s1k-1.1": Published("simplescaling/s1K-1.1"),
    "openr1-3k": Published("open-r1/Mixture-of-Thoughts:all", 3000, 2500),
}
_MAX_STATE_BYTES = 1 << 26  # of a saved data set's metadata, which lists columns and shards

_HELD_OUT = re.compile("tests?|testing|dev|val|valid|validation|eval|evaluation|heldout|holdout")
_TRAINING = re.compile("train|training")


def is_hub_id(data: str) -> bool:
    """Return whether a text has the form owner/name and is not a path or file name."""
    is_path = data.startswith((".", "/", "~")) or suffix_of(data) in SUFFIXES
    return not is_path and data.count("/") == 1


def source_rows(data: str, columns: Collection[str], reject: Reject) -> Iterator[Row]:
    """Yield the records of a source; invalid lines go to `reject`.

    data: a file, a folder of JSONL and Parquet files, a save_to_disk folder, a name in PUBLISHED,
    or a Hub id (owner/name or owner/name:configuration; split train). columns: as for read_rows.
    Raises UserError for a missing or unreadable path."""
    path = Path(data)
    if path.is_dir():
        is_saved = any((path / name).exists() for name in ("state.json", "dataset_dict.json"))
        yield from _saved_rows(path, columns) if is_saved else _folder_rows(path, columns, reject)
    elif path.exists() or not (data in PUBLISHED or is_hub_id(data)):
        yield from read_rows(path, columns, reject)
    else:
        name = PUBLISHED[data].hub if data in PUBLISHED else data
        yield from hub_rows(data, name, "train", columns)


def hub_rows(data: str, name: str, split: str, columns: Collection[str] | None) -> Iterator[Row]:
    """Yield the `columns` of a Hub data set's split. Raises UserError if loading fails.

    data: the option's value, for errors. name: "owner/name" or "owner/name:configuration"."""
    from datasets import load_dataset

    from weft_rl.checkpoints.hub import announce_download

    place, _, configuration = name.partition(":")
    announce_download(place)
    fix = "save it as JSONL or Parquet and name the file"
    with _reading(data, f"split {split} cannot be loaded from the hub", fix):
        table = load_dataset(place, configuration or None, split=split)
    yield from _table_rows(name, table, columns)


def _folder_rows(path: Path, columns: Collection[str], reject: Reject) -> Iterator[Row]:
    names = sorted(file.relative_to(path) for file in path.rglob("*"))
    # downloads keep metadata in hidden folders
    shown = [name for name in names if not any(part[0] == "." for part in name.parts)]
    files = [name for name in shown if suffix_of(name.name) in RECORD_SUFFIXES]
    if not files:
        raise UserError(f"data={path}: holds no .jsonl or .parquet file; name another folder")
    for name in files:
        if is_held_out(str(name)):
            problem = "is named like held-out records; name the training files"
            raise UserError(f"{path / name}: {problem}")
    for name in files:
        yield from read_rows(path / name, columns, reject)


def is_held_out(name: str) -> bool:
    """Return whether a file or folder name contains a full word for held-out data.

    Examples: gsm8k_test.jsonl and heldOut/1.jsonl, but not train_without_test.jsonl."""
    words = [word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    pairs = ["".join(pair) for pair in pairwise(words)]  # held_out, hold-out
    is_named = any(_HELD_OUT.fullmatch(word) for word in [*words, *pairs])
    return is_named and not any(map(_TRAINING.fullmatch, words))


def _saved_rows(path: Path, columns: Collection[str]) -> Iterator[Row]:
    from datasets import Dataset, load_from_disk

    with _reading(str(path)):
        _require_inside(path)
        saved = load_from_disk(str(path))
    if not isinstance(saved, Dataset):
        if "train" not in saved:
            splits = ", ".join(map(str, saved))
            raise UserError(f"data={path}: has no split train; name the folder of {splits}")
        saved = saved["train"]
    yield from _table_rows(str(path), saved, columns)


def _require_inside(path: Path) -> None:
    for file in path.rglob("*.json"):
        require_regular(file, _MAX_STATE_BYTES)
        saved = json.loads(file.read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in saved.get("_data_files", [])]
        for name in [*names, *saved.get("splits", [])]:
            # `..` and absolute paths could read any file
            if Path(name).name != name or name == "..":
                raise UserError(f"{file}: names {name!r} outside of its folder; save it again")
        for name in names:
            require_regular(file.parent / name)


def _table_rows(name: str, table: "Dataset", columns: Collection[str] | None) -> Iterator[Row]:
    names = dict.fromkeys(table.column_names)
    read = [*used(names, columns)]
    table = table.with_format(None)  # the format may be tensors
    rows: Iterable[dict[str, Any]] = table.select_columns(read) if read else [{}] * len(table)
    with _reading(name):
        for number, row in enumerate(rows, 1):
            yield f"{name}: record {number}", names | row


@contextmanager
def _reading(
    data: str, problem: str = "cannot be read", fix: str = "save it again"
) -> Generator[None]:
    """Convert errors of `datasets`: damaged files, networks and missing sets raise many types."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data={data}: {problem} ({one_line(error)[:300]}); {fix}") from error
