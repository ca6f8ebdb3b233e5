"""A run folder: its paths, its metric lines, and writing that is complete or absent."""

import fcntl
import json
import logging
import math
import os
import shutil
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from weft_rl.errors import UserError

CONFIG, METRICS, EVAL = "config.yaml", "metrics.jsonl", "eval.json"
CURVES, REPORT = "curves.png", "report.html"
# Stages that are through, with their last checkpoints relative to the run folder.
FINISHED = "stages.json"
_LOCK = ".lock"
logger = logging.getLogger(__name__)


@contextmanager
def one_writer(run: Path) -> Generator[None]:
    """Hold the run folder for this process; a dead process holds nothing.

    Raises UserError naming the process that has it."""
    with (run / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UserError(
                f"out={run}: {owner} is writing there; wait for it, stop it, or choose another out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: beside the target, flushed to disk, then renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, default: Any) -> Any:
    """The file's JSON value, or `default` when there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def read_config(run: Path) -> dict[str, Any]:
    """The content of a run folder's config.yaml; empty without one.

    Raises UserError for a file that is no YAML of options."""
    path = run / CONFIG
    if not path.exists():
        return {}
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace")) or {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}); mend or remove it") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no options; mend or remove it")
    return settings


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line. Non-finite floats become null: NaN is not JSON."""
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(clean, allow_nan=False) + "\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a .jsonl file; other lines are passed over, with a warning.

    Without one a last line that has no end: a run is writing it, or was killed over it. Yields
    nothing when there is no such file."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            elif line.endswith("\n"):
                _warn(path, number)


@cache  # once for a line, however often its file is read
def _warn(path: Path, line: int) -> None:
    logger.warning("%s, line %d: is no JSON object and is passed over", path, line)


def cut_lines(path: Path, stage: str, last_step: int) -> None:
    """Drop the lines of `stage` after `last_step`, so that a resumed run writes them once."""
    if path.exists():
        kept = (r for r in read_lines(path) if r["stage"] != stage or r["step"] <= last_step)
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def checkpoint_path(run: Path, stage: str, step: int) -> Path:
    """Where the checkpoint of a stage's step lies."""
    return run / "checkpoints" / stage / f"step-{step}"


def newest_checkpoint(run: Path, stage: str) -> Path | None:
    """The stage's checkpoint of the highest step; None when there is none.

    Folders being written have other names, so whatever is found is complete."""
    found = [
        (int(path.name.removeprefix("step-")), path)
        for path in (run / "checkpoints" / stage).glob("step-*")
        if path.name.removeprefix("step-").isdecimal()
    ]
    return max(found)[1] if found else None


def publish(scratch: Path, final: Path) -> None:
    """Rename a finished folder to its place, replacing an older one of the same name."""
    if final.exists():
        shutil.rmtree(final)  # a rename onto a full folder fails
    scratch.replace(final)
