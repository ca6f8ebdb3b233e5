"""Reading files that anybody may have written: regular files of a plausible size, or UserError.

A FIFO or device would block or never end, a sparse file would fill the memory, and deeply nested
JSON or YAML would exhaust the stack of whatever walks through it."""

import json
import re
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from weft_rl.errors import UserError

# Bytes. The largest tokenizer.json of the published families has 11 MB, Gemma's 33 MB.
MAX_BYTES = 2**28
# Bytes of one line of a .jsonl file: far above a completion with its record.
_MAX_LINE = 2**26
# config.yaml and evaluation results nest 6 deep, tokenizer.json 8.
_MAX_DEPTH = 64
# Fields that transformers builds a table of, whose size a damaged or hostile number sets.
_TABLES = ("num_labels", "extra_ids", "num_hidden_layers", "n_layers", "num_experts")
_MAX_TABLE = 100_000
_HUGE = 1e100  # sums and squares of smaller numbers are finite
# What libraries read of a model's folder.
_MODEL_FILES = re.compile(r".*\.(json|safetensors|txt|model|jinja)")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def regular_size(path: Path, cure: str = "copy it again") -> int:
    """The size of a regular file, links followed.

    Raises UserError for anything else under that name, and for a name that leads nowhere."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); {cure}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise UserError(f"{path}: is {kind}, not a regular file; {cure}")
    return status.st_size


def read_text(path: Path, cure: str = "copy it again", limit: int = MAX_BYTES) -> str:
    """The text of a regular file of at most `limit` bytes, UTF-8.

    Raises UserError naming the file for anything else."""
    size = regular_size(path, cure)
    if size > limit:
        raise UserError(f"{path}: has {size} bytes, more than the {limit} of any such file; {cure}")
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:  # grown since, or a file of /proc, whose size is 0
            raise UserError(f"{path}: has more than {limit} bytes; {cure}")
        return content.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {cure}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error}); {cure}") from error


def read_json(path: Path, cure: str = "copy it again", limit: int = MAX_BYTES) -> Any:
    """The value of a JSON file. Raises UserError as read_text does, and for JSON that is damaged or
    nested too deep."""
    text = read_text(path, cure, limit)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read (not JSON: {_line(error)}); {cure}") from error
    return _shallow(path, value, cure)


def read_yaml(path: Path, cure: str = "mend or remove it") -> Any:
    """The value of a YAML file without aliases, which can stand for any amount of text.

    Raises UserError as read_json does."""
    return parse_yaml(read_text(path, cure, limit=2**20), path, cure)


def parse_yaml(text: str, path: Path, cure: str = "mend or remove it") -> Any:
    """The value of the text of a YAML file, as read_yaml gives it."""
    try:
        value = yaml.load(text, _Loader)
    # ValueError: a number or date that Python does not have
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({_line(error)}); {cure}") from error
    return _shallow(path, value, cure)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("holds an alias (*name)")
        return super().compose_node(parent, index)


def read_lines(path: Path, cure: str = "mend or remove it") -> Iterator[str]:
    """The lines of a regular text file with their ends.

    Raises UserError for anything else, and for a line that is longer than any such file has."""
    regular_size(path, cure)
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number in range(1, 2**63):
            line = file.readline(_MAX_LINE)
            if len(line) >= _MAX_LINE:
                raise UserError(f"{path}:{number}: is longer than {_MAX_LINE} characters; {cure}")
            if not line:
                return
            yield line


def check_model_folder(folder: Path) -> None:
    """Raise UserError unless what a library would open in a model's folder is a regular file of a
    plausible size, and the tables that its settings ask for are too."""
    for path in sorted(folder.iterdir()):
        if not _MODEL_FILES.fullmatch(path.name):
            continue
        size = regular_size(path)
        if size > MAX_BYTES and path.suffix != ".safetensors":
            raise UserError(f"{path}: has {size} bytes, more than any such file; copy it again")
        if path.suffix == ".json" and size:
            require_plausible(read_json(path), path)


def require_plausible(settings: Any, path: Path) -> None:
    """Raise UserError for a field of a settings file that asks for a table of implausible size."""
    for name in _TABLES if isinstance(settings, Mapping) else ():
        value = settings.get(name)
        if isinstance(value, int | float) and not abs(value) <= _MAX_TABLE:
            raise UserError(
                f"{path}: {name}={value}: must be at most {_MAX_TABLE}; copy the published file"
            )


@contextmanager
def parsing(path: Path) -> Generator[None]:
    """Work with the content of a file that may be damaged: a value of the wrong type or one that is
    missing raises UserError naming the file."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"{path}: holds a damaged value ({reason}); mend or remove it") from error


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that can be drawn and averaged: not NaN, infinite or huge."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_HUGE < value < _HUGE


def is_shallow(value: Any) -> bool:
    """Whether nothing that walks through a JSON or YAML value can run out of stack."""
    level, depth = [value], 0
    while level and depth <= _MAX_DEPTH:
        level = [inner for outer in level for inner in _containers(outer)]
        depth += 1
    return not level


def _shallow(path: Path, value: Any, cure: str) -> Any:
    if not is_shallow(value):
        raise UserError(f"{path}: is nested more than {_MAX_DEPTH} deep; {cure}")
    return value


def _containers(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [inner for inner in value.values() if isinstance(inner, Mapping | list)]
    if isinstance(value, list):
        return [inner for inner in value if isinstance(inner, dict | list)]
    return []
