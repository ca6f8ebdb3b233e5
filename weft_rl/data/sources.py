"""Sources of records: files, folders, saved data sets and the Hub; cold-start records of one."""

import json
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from heapq import nsmallest
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weft_rl.config.cold_start import DataConfig
from weft_rl.config.fields import shown
from weft_rl.data.files import RECORD_SUFFIXES, SUFFIXES, read_rows, suffix_of
from weft_rl.data.json_rows import Row, used
from weft_rl.data.rejects import Reject, Rejects
from weft_rl.data.trace_schemas import COLUMNS, Trace, trace_of, turns_of
from weft_rl.data.values import is_missing, one_line
from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_text, regular_size
from weft_rl.seeding import seed_for

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


def read_traces(data: str, options: DataConfig, rejects: Rejects) -> list[Trace]:
    """Return the traces of a source in order; unusable and duplicate ones go to `rejects`.

    data: see source_rows. Raises UserError under a raising policy and without usable records."""
    published = PUBLISHED.get(data, Published(data))
    below = options.below_tokens or published.below_tokens
    count = options.num_records or published.num_records
    traces = _usable(data, options, rejects)
    if below is not None:
        traces = (trace for trace in traces if _num_tokens(trace) < below)
    if count is not None:
        # uniform; the i-th key depends only on (seed, i)
        lots = ((seed_for(options.draw_seed, "record", i), i, t) for i, t in enumerate(traces))
        drawn = nsmallest(count, lots, key=lambda lot: lot[:2])
        traces = (trace for _, _, trace in sorted(drawn, key=lambda lot: lot[1]))
    chosen = [*traces]
    if not chosen:
        limit = "" if below is None else f" below {below} tokens"
        raise UserError(
            f"data={data}: holds no records{limit}{rejects.first()}; name a source that does"
        )
    if count is not None and len(chosen) < count:
        raise UserError(
            f"cold_start.data.num_records={count}: only {len(chosen)} records of data={data} can "
            f"be drawn; try {len(chosen)}"
        )
    return chosen


def _usable(data: str, options: DataConfig, rejects: Rejects) -> Iterator[Trace]:
    places: dict[int, str] = {}
    ids: dict[str, str] = {}
    for where, row in source_rows(data, COLUMNS, rejects):
        try:
            trace = trace_of(row, where, options.think)
            if options.chat_turns == "all":
                [*turns_of(trace, options.think)]  # validates every turn
        except ValueError as error:
            rejects(UserError(f"{where}: {error}; fix or remove the record"))
            continue
        # hashes bound the memory for large data sets
        content = hash((trace.history, trace.question, trace.reasoning, trace.answer))
        key = "" if is_missing(row.get("id")) else str(row["id"])
        if content in places:
            rejects.repeat(where, places[content])
        elif key in ids:
            same = f"has the id {shown(row['id'])} of the record at {ids[key]}"
            rejects(UserError(f"{where}: {same}; remove one"))
        else:
            places[content] = where
            if key:
                ids[key] = where
            yield trace


def _num_tokens(trace: Trace) -> int:
    if trace.num_tokens is None:
        raise UserError(
            f"{trace.source}: has no num_tokens, which cold_start.data.below_tokens needs; "
            "limit the length with cold_start.data.max_length"
        )
    return trace.num_tokens


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
    visible = [name for name in names if not any(part[0] == "." for part in name.parts)]
    files = [name for name in visible if suffix_of(name.name) in RECORD_SUFFIXES]
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
        saved = json.loads(read_text(file, limit=_MAX_STATE_BYTES))
        names = [entry["filename"] for entry in saved.get("_data_files", [])]
        for name in [*names, *saved.get("splits", [])]:
            # `..` and absolute paths could read any file
            if Path(name).name != name or name == "..":
                raise UserError(f"{file}: names {name!r} outside of its folder; save it again")
        for name in names:
            regular_size(file.parent / name)


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
