"""Files of generations, and what a line of one holds: d1's form, and that of a run's completions.

d1's form has `question`, `generation` and `ground_truth`; RUN/completions/*.jsonl have `completion`
and the record's `fields`."""

import gzip
import json
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from os import fstat
from pathlib import Path
from typing import IO, Any
from zlib import error as ZlibError

from rewards.verdicts import JUDGES
from weft_rl.data.records import FIELDS
from weft_rl.errors import UserError

Fields = Mapping[str, Any]

# The fields of a task's record as d1's form has them.
_STORED: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "sudoku": lambda fields: {"question": fields["puzzle"], "ground_truth": fields["solution"]},
    "countdown": lambda fields: {"ground_truth": [fields["numbers"], fields["target"]]},
    "gsm8k": lambda fields: {"ground_truth": fields["answer"]},
    "math500": lambda fields: {"question": fields["problem"], "ground_truth": fields["answer"]},
}
_GZIP = b"\x1f\x8b"
# Of what is no text, by its first bytes.
_KINDS = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x89HDF": "an HDF5 file",
    b"SQLite": "an SQLite file",
}
# A document of more bytes is not read whole to say what it is.
_LONGEST_DOCUMENT = 64 << 20


@contextmanager
def open_generations(path: Path) -> Generator[tuple[IO[bytes] | gzip.GzipFile, int]]:
    """The bytes of a file, unpacked if gzip packed it, and its size on disk.

    Raises UserError, naming the cause, for what cannot be read or is no text."""
    try:
        with path.open("rb") as file:
            status = fstat(file.fileno())
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
                raise UserError(f"generations={path}: is no regular file; name a JSONL file")
            head = file.peek(8)
            for start, kind in _KINDS.items():
                if head.startswith(start):
                    raise UserError(f"generations={path}: is {kind}; convert it to JSON lines")
            if head.startswith(_GZIP):
                with gzip.open(file) as unpacked:
                    yield unpacked, status.st_size
            else:
                yield file, status.st_size
    except (EOFError, ZlibError, gzip.BadGzipFile) as error:
        raise UserError(f"generations={path}: is damaged ({error}); make it again") from error
    except OSError as error:
        raise UserError(
            f"generations={path}: cannot be read ({error.strerror}); name a JSONL file"
        ) from error


def is_one_document(path: Path) -> bool:
    """Whether a file is one JSON text over several lines, or a list, in place of JSON lines."""
    try:
        with open_generations(path) as (file, _):
            text = file.read(_LONGEST_DOCUMENT)
        return isinstance(json.loads(text.decode("utf-8-sig")), list | dict)
    except (UserError, ValueError, RecursionError):
        return False


def read_line(task: str, line: bytes) -> tuple[str, dict[str, Any]] | str:
    """The generation and the record's fields of a line, or what is wrong with it."""
    try:
        # json would guess UTF-16 from the first bytes; half a surrogate pair is left to the scorers
        row = json.loads(line.decode("utf-8-sig", "surrogatepass"))
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text ({error}); convert it"
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    if not isinstance(row, dict):
        return "must be an object with a text `generation`"
    if row.get("task") in [name for name in JUDGES if name != task]:
        return f"is of task={row['task']}"
    fields = row.get("fields")
    from_run = "generation" not in row and isinstance(fields, dict)
    generation = row.get("completion") if from_run else row.get("generation")
    if not isinstance(generation, str):
        return "must be an object with a text `generation`, or with `completion` and `fields`"
    try:
        if task in JUDGES:
            return generation, JUDGES[task].fields(_STORED[task](fields) if from_run else row)
        return generation, fields if isinstance(fields, dict) else FIELDS[task](row)
    except ValueError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        return f"its fields cannot be read ({type(error).__name__}: {error})"
