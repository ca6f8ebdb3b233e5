"""Reading files from untrusted folders: regular files of plausible size, or UserError.

A FIFO never ends, a sparse file fills the memory, and deeply nested JSON exhausts the stack."""

import json
import re
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from weft_rl.errors import UserError

MAX_BYTES = 2**28  # the largest tokenizer.json of the published families, Gemma's, has 33 MB
_MAX_LINE = 2**26  # characters of a .jsonl line, far above a completion with its record
_MAX_DEPTH = 64  # config.yaml and eval.json nest 6 deep, tokenizer.json 8
# Fields for which transformers allocates a table of that size.
_TABLES = ("num_labels", "extra_ids", "num_hidden_layers", "n_layers", "num_experts")
_MAX_TABLE = 100_000
_HUGE = 1e100  # sums and squares of smaller numbers are finite
_MODEL_FILES = re.compile(r".*\.(json|safetensors|txt|model|jinja)")
_COPY, _REPAIR = "copy it again", "repair or remove it"


def regular_size(path: Path, fix: str = _COPY) -> int:
    """Return the size in bytes of a regular file or a link to one. Raises UserError for others."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _unreadable(path, error, fix) from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is not a regular file; {fix}")
    return status.st_size


def read_text(path: Path, fix: str = _COPY, limit: int = MAX_BYTES) -> str:
    """Return the text of a regular UTF-8 file of at most `limit` bytes, or raise UserError."""
    content = b""
    size = regular_size(path, fix)
    try:
        if size <= limit:
            with path.open("rb") as file:
                content = file.read(limit + 1)  # a file of /proc has size 0
        if max(size, len(content)) > limit:
            raise UserError(f"{path}: is larger than {limit} bytes; {fix}")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error, fix) from error


def read_json(path: Path, fix: str = _COPY, limit: int = MAX_BYTES) -> Any:
    """Return the value of a JSON file, not nested too deeply. Raises UserError as read_text."""
    text = read_text(path, fix, limit)
    try:
        return _require_shallow(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error, fix) from error


def read_yaml(path: Path, fix: str = _REPAIR) -> Any:
    """Return the value of a YAML file. Raises UserError as parse_yaml does."""
    return parse_yaml(read_text(path, fix, limit=2**20), path, fix)


def parse_yaml(text: str, path: Path, fix: str = _REPAIR) -> Any:
    """Parse the text of a YAML file.

    Raises UserError for malformed or deeply nested YAML, and for aliases, which may expand
    endlessly."""
    try:
        return _require_shallow(yaml.load(text, _Loader))
    # ValueError: a number or date that Python cannot represent
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, error, fix) from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)


def read_lines(path: Path, fix: str = _REPAIR) -> Iterator[str]:
    """Yield the lines of a regular text file with line ends. Raises UserError for long lines."""
    regular_size(path, fix)
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), ""), 1):
            if len(line) >= _MAX_LINE:
                raise UserError(f"{path}:{number}: is longer than {_MAX_LINE} characters; {fix}")
            yield line


def check_model_folder(folder: Path) -> None:
    """Raise UserError unless a model folder's files and table sizes are plausible."""
    for path in sorted(folder.iterdir()):
        if _MODEL_FILES.fullmatch(path.name):
            size = regular_size(path)
            if size > MAX_BYTES and path.suffix != ".safetensors":
                raise UserError(f"{path}: is larger than {MAX_BYTES} bytes; {_COPY}")
            if path.suffix == ".json" and size:
                require_plausible(read_json(path), path)


def require_plausible(settings: Any, path: Path) -> None:
    """Raise UserError for a model setting that requests an implausibly large table."""
    for name in _TABLES if isinstance(settings, Mapping) else ():
        value = settings.get(name)
        if isinstance(value, int | float) and not abs(value) <= _MAX_TABLE:
            raise UserError(f"{path}: {name}={value}: must be at most {_MAX_TABLE}; {_COPY}")


@contextmanager
def parsing(path: Path) -> Generator[None]:
    """Convert missing-key and wrong-type errors in a file into a UserError naming it."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"{path}: has a damaged value ({reason}); {_REPAIR}") from error


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value can be plotted and averaged: not NaN, infinite or huge."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_HUGE < value < _HUGE


def is_shallow(value: Any) -> bool:
    """Return whether a JSON or YAML value is shallow enough for recursive code."""
    level = [[value]]
    for _ in range(_MAX_DEPTH + 2):
        nested = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for outer in nested for inner in outer if isinstance(inner, dict | list)]
        if not level:
            return True
    return False


def _require_shallow(value: Any) -> Any:
    if not is_shallow(value):
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    return value


def _unreadable(path: Path, error: Exception, fix: str) -> UserError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return UserError(f"{path}: cannot be read ({reason}); {fix}")
