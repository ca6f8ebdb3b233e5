"""Where cold-start records are read from: files, folders, saved data sets and the hub."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from weft_rl.data.records import read_jsonl
from weft_rl.errors import UserError

Reject = Callable[[UserError], None]
# A record and its place, "file:line" or "data set: record N", counted from 1
Row = tuple[str, Mapping[str, Any]]


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
_SUFFIXES = (".jsonl", ".parquet")
_TEXT_SUFFIXES = (*_SUFFIXES, ".json", ".csv", ".txt")  # of files, not of a hub id's last letters

# Parquet's records decoded at a time: its default, 65,536 long traces, is gigabytes
_BATCH = 256


def read_rows(data: str, reject: Reject) -> Iterator[Row]:
    """The records of a JSONL or Parquet file, a folder of such files or made by save_to_disk, a
    name in PUBLISHED, or a hub id (owner/name, or owner/name:configuration; split train).

    Lines that are no records go to `reject`, which raises them or returns. Raises UserError for
    a place that is not there or cannot be read."""
    path = Path(data)
    if path.is_dir():
        yield from _folder(path, reject)
    elif path.exists() or not _is_hub_id(data):
        yield from _file(path, reject)
    else:
        yield from _hub(data)


def _is_hub_id(data: str) -> bool:
    if data in PUBLISHED:
        return True
    is_path = data.startswith((".", "/", "~")) or data.endswith(_TEXT_SUFFIXES)
    return not is_path and data.count("/") == 1


def _file(path: Path, reject: Reject) -> Iterator[Row]:
    if path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        yield from ((f"{path}:{line}", row) for line, row in read_jsonl(path, reject))


def _folder(path: Path, reject: Reject) -> Iterator[Row]:
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        yield from _saved(path)
        return
    files = sorted(
        file
        for file in path.rglob("*")
        # downloads leave their own notes in hidden folders
        if file.suffix in _SUFFIXES and not any(p[0] == "." for p in file.relative_to(path).parts)
    )
    if not files:
        raise UserError(f"data={path}: holds no .jsonl or .parquet file; name a folder that does")
    for file in files:
        if file.name.startswith(("test", "valid", "eval")):
            raise UserError(f"{file}: is named like held-out records; name the training files")
    for file in files:
        yield from _file(file, reject)


def _parquet(path: Path) -> Iterator[Row]:
    # imported here: a help text must not wait for it
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: record {number}", row
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read as Parquet after record {number} ({_line(error)}); mend it"
        ) from error


def _saved(path: Path) -> Iterator[Row]:
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
    try:
        yield from _numbered(str(path), saved)
    except Exception as error:
        raise UserError(f"data={path}: cannot be read ({_line(error)}); save it again") from error


def _check_inside(path: Path) -> None:
    """Raise UserError for a saved data set that names a file or split outside of its folder."""
    for file in path.rglob("*.json"):
        saved = json.loads(file.read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in saved.get("_data_files", [])]
        for name in [*names, *saved.get("splits", [])]:
            # joined to the folder: `..` or an absolute one would read anything
            if Path(name).name != name or name == "..":
                raise UserError(f"{file}: names {name!r}, which is not beside it; not read")


def _hub(data: str) -> Iterator[Row]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    from weft_rl.places import tell_of_hub

    name = PUBLISHED[data].hub if data in PUBLISHED else data
    place, _, configuration = name.partition(":")
    tell_of_hub(place)
    try:
        rows = load_dataset(place, configuration or None, split="train")
    # ValueError: an unknown configuration or split
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"data={data}: could not be loaded from the hub ({_line(error)}); save it on this "
            "machine as JSONL or Parquet and name the file"
        ) from error
    yield from _numbered(name, rows)


def _numbered(name: str, rows: Iterable[Any]) -> Iterator[Row]:
    return ((f"{name}: record {number}", row) for number, row in enumerate(rows, 1))


def _line(error: Exception) -> str:
    """An error's own words on one line."""
    return " ".join(str(error).split()) or type(error).__name__
