"""Sources of cold-start records: files, folders, saved data sets and the Hub."""

import json
import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from weft_rl.data.files import is_record_file, read_rows, require_regular
from weft_rl.data.hub import hub_rows, is_hub_id, table_rows
from weft_rl.data.json_rows import Row
from weft_rl.data.rejects import Reject
from weft_rl.data.values import one_line
from weft_rl.errors import UserError


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


def source_rows(data: str, columns: Collection[str], reject: Reject) -> Iterator[Row]:
    """Yield the records of a source; invalid lines go to `reject`.

    data: a file, a folder of JSONL and Parquet files, a save_to_disk folder, a name in PUBLISHED,
    or a Hub id (owner/name or owner/name:configuration; split train). columns: as for read_rows.
    Raises UserError for a missing or unreadable path."""
    path = Path(data)
    if path.is_dir():
        yield from _folder_rows(path, columns, reject)
    elif path.exists() or not (data in PUBLISHED or is_hub_id(data)):
        yield from read_rows(path, columns, reject)
    else:
        name = PUBLISHED[data].hub if data in PUBLISHED else data
        yield from hub_rows(data, name, "train", columns)


def _folder_rows(path: Path, columns: Collection[str], reject: Reject) -> Iterator[Row]:
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        yield from _saved_rows(path, columns)
        return
    files = sorted(
        file
        for file in path.rglob("*")
        # downloads keep metadata in hidden folders
        if is_record_file(file) and not any(p[0] == "." for p in file.relative_to(path).parts)
    )
    if not files:
        raise UserError(f"data={path}: holds no .jsonl or .parquet file; name another folder")
    for file in files:
        if is_held_out(str(file.relative_to(path))):
            raise UserError(f"{file}: is named like held-out records; name the training files")
    for file in files:
        yield from read_rows(file, columns, reject)


def is_held_out(name: str) -> bool:
    """Return whether a file or folder name contains a full word for held-out data.

    Examples: gsm8k_test.jsonl and heldOut/1.jsonl, but not train_without_test.jsonl."""
    words = [word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    pairs = ["".join(pair) for pair in pairwise(words)]  # held_out, hold-out
    is_named = any(_HELD_OUT.fullmatch(word) for word in [*words, *pairs])
    return is_named and not any(map(_TRAINING.fullmatch, words))


def _saved_rows(path: Path, columns: Collection[str]) -> Iterator[Row]:
    from datasets import Dataset, load_from_disk

    try:
        _require_inside(path)
        saved = load_from_disk(str(path))
    except UserError:
        raise
    # damaged files raise many types
    except Exception as error:
        raise UserError(
            f"data={path}: cannot be read ({one_line(error)}); save it again"
        ) from error
    if not isinstance(saved, Dataset):
        if "train" not in saved:
            splits = ", ".join(map(str, saved))
            raise UserError(f"data={path}: has no split train; name the folder of {splits}")
        saved = saved["train"]
    yield from table_rows(str(path), saved, columns)


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
