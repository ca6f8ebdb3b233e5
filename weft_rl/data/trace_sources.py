"""Where cold-start records are read from: files, folders, saved data sets and the hub."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weft_rl.data.files import Row, is_file_name, is_record_file, read_rows, require_regular
from weft_rl.data.rejects import Reject
from weft_rl.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


class Published(NamedTuple):
    """A data set of the hub by its name here, and how much of it is taken."""

    hub: str
    num_records: int | None = None
    below_tokens: int | None = None


# The WeFT paper's cold-start sets. It does not say with which tokenizer or seed the third was made.
PUBLISHED = {
    "s1k": Published("simplescaling/s1K"),
    "s1k-1.1": Published("simplescaling/s1K-1.1"),
    "openr1-3k": Published("open-r1/Mixture-of-Thoughts:all", 3000, 2500),
}
_LONGEST_STATE = 1 << 26  # bytes of a saved data set's description, which lists columns and shards

# Words of a file's or folder's name that tell what is in it.
_HELD_OUT = re.compile("tests?|testing|dev|val|valid|validation|eval|evaluation|heldout|holdout")
_TRAINING = re.compile("train|training")


def source_rows(data: str, columns: Collection[str], reject: Reject) -> Iterator[Row]:
    """The records of a file, a folder of JSONL and Parquet files or made by save_to_disk, a name in
    PUBLISHED, or a hub id (owner/name, or owner/name:configuration; split train).

    columns: those that are used, as read_rows takes them. Lines that are no records go to `reject`,
    which raises them or returns. Raises UserError for a place that is not there or cannot be
    read."""
    path = Path(data)
    if path.is_dir():
        yield from _folder(path, columns, reject)
    elif path.exists() or not (data in PUBLISHED or is_hub_id(data)):
        yield from read_rows(path, columns, reject)
    else:
        yield from _hub(data, columns)


def is_hub_id(data: str) -> bool:
    """Whether a text is formed like a hub's owner/name, and not like a path or a file's name."""
    is_path = data.startswith((".", "/", "~")) or is_file_name(data)
    return not is_path and data.count("/") == 1


def _folder(path: Path, columns: Collection[str], reject: Reject) -> Iterator[Row]:
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        yield from _saved(path, columns)
        return
    files = sorted(
        file
        for file in path.rglob("*")
        # downloads leave their own notes in hidden folders
        if is_record_file(file) and not any(p[0] == "." for p in file.relative_to(path).parts)
    )
    if not files:
        raise UserError(
            f"data={path}: holds no .jsonl or .parquet file; name a folder that does, or a file"
        )
    for file in files:
        if is_held_out(str(file.relative_to(path))):
            raise UserError(f"{file}: is named like held-out records; name the training files")
    for file in files:
        yield from read_rows(file, columns, reject)


def is_held_out(name: str) -> bool:
    """Whether a file's name, or a folder's in its path, says that its records are held out.

    Whole words count: dev.jsonl, gsm8k_test.jsonl and heldOut/1.jsonl do, testimonials.jsonl does
    not, and train_without_test.jsonl says that it is for training."""
    words = [word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    pairs = ["".join(pair) for pair in pairwise(words)]  # held_out, hold-out
    told = any(_HELD_OUT.fullmatch(word) for word in [*words, *pairs])
    return told and not any(map(_TRAINING.fullmatch, words))


def _saved(path: Path, columns: Collection[str]) -> Iterator[Row]:
    from datasets import Dataset, load_from_disk

    try:
        _check_inside(path)
        saved = load_from_disk(str(path))
    # a damaged file of its own makes the library raise almost anything
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"data={path}: cannot be read ({_line(error)}); save it again") from error
    if not isinstance(saved, Dataset):
        if "train" not in saved:
            splits = ", ".join(map(str, saved))
            raise UserError(f"data={path}: has no split train; name the folder of {splits}")
        saved = saved["train"]
    yield from table_rows(str(path), saved, columns)


def _check_inside(path: Path) -> None:
    """Raise UserError for a saved data set that names a file or split outside of its folder."""
    for file in path.rglob("*.json"):
        require_regular(file, _LONGEST_STATE)
        saved = json.loads(file.read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in saved.get("_data_files", [])]
        for name in [*names, *saved.get("splits", [])]:
            # joined to the folder: `..` or an absolute one would read anything
            if Path(name).name != name or name == "..":
                raise UserError(f"{file}: names {name!r}, which is not beside it; not read")
        for name in names:
            require_regular(file.parent / name)


def _hub(data: str, columns: Collection[str]) -> Iterator[Row]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    from weft_rl.checkpoints.hub import announce_download

    name = PUBLISHED[data].hub if data in PUBLISHED else data
    place, _, configuration = name.partition(":")
    announce_download(place)
    try:
        rows = load_dataset(place, configuration or None, split="train")
    # ValueError: an unknown configuration or split
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"data={data}: could not be loaded from the hub ({_line(error)}); save it on this "
            "machine as JSONL or Parquet and name the file"
        ) from error
    yield from table_rows(name, rows, columns)


def table_rows(name: str, table: "Dataset", columns: Collection[str] | None) -> Iterator[Row]:
    """The records of a data set of `datasets` and their places; only `columns` are read."""
    names = table.column_names
    rows: Iterable[dict[str, Any]] = table.with_format(None)  # it may be set up for tensors
    if columns is not None:
        roots = {column.partition(".")[0] for column in columns}
        read = [name for name in names if name.lower() in roots]
        rows = table.with_format(None).select_columns(read) if read else [{}] * len(table)
    number = 0
    try:
        for row in rows:
            number += 1
            yield f"{name}: record {number}", dict.fromkeys(names) | row
    # a damaged file of a saved data set makes the library raise almost anything
    except Exception as error:
        raise UserError(
            f"data={name}: cannot be read after record {number} ({_line(error)}); save it again"
        ) from error


def _line(error: Exception) -> str:
    """An error's own words on one line."""
    return " ".join(str(error).split()) or type(error).__name__
