"""A run folder: its paths, its metric lines, and writing that is complete or absent."""

import fcntl
import glob
import json
import logging
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from weft_rl.io import safe_files
from weft_rl.errors import UserError
from weft_rl.runs.checksums import find_corruption, sync
from weft_rl.runs.renamed import with_new_keys

CONFIG, METRICS, EVAL = "config.yaml", "metrics.jsonl", "eval.json"
CURVES, REPORT = "curves.png", "report.html"
HEAT, TRACE = "token_heat-{stage}.json", "completions/trace-{stage}.json"
# Stages that are through, with their last checkpoints relative to the run folder.
FINISHED = "stages.json"
# What tables call a model that a run starts from and has not pretrained; "base" in eval.json.
START = "start"
_LOCK = ".lock"
MEND = "mend or remove it"
logger = logging.getLogger(__name__)


@contextmanager
def run_lock(run: Path) -> Generator[None]:
    """Hold the run folder for this process; a dead process holds nothing.

    Raises UserError naming the process that has it."""
    path = run / _LOCK
    if os.path.lexists(path):
        safe_files.regular_size(path, "remove it")
    with ExitStack() as stack:
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
        if not _locked(file):
            file.seek(0)
            owner = file.read().strip()
            if _is_alive(owner):
                raise UserError(
                    f"out={run}: {owner or 'another process'} is writing there; wait for it, stop "
                    "it, or choose another out"
                )
            # a child that was forked from the dead one may hold on to its lock, but not to a new
            # file's
            path.unlink(missing_ok=True)
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            if not _locked(file):
                raise UserError(f"out={run}: another process has begun to write there; look again")
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        file.flush()
        yield


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(owner: str) -> bool:
    """Whether the process that a lock names runs; one that cannot be looked at counts as such."""
    named = re.match(r"process (\d+) on (\S+)", owner)
    if named is None or named[2] != socket.gethostname():
        return True
    return _runs(int(named[1]))


def _runs(process: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text as write_bytes does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside the target, flushed to disk, then renamed."""
    _remove_torn(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync(path.parent)
    except OSError as error:
        # the name that is meant, not the one that it has while it is written
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def _remove_torn(path: Path) -> None:
    """Remove what processes that were killed left beside a file they were writing."""
    for torn in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = torn.name.rsplit(".", 2)[1]
        if process.isdecimal() and not _runs(int(process)):
            torn.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, default: Any) -> Any:
    """The file's JSON value, or `default` when there is no such file.

    Raises UserError for a file that cannot be read or holds another type than `default` is."""
    if not os.path.lexists(path):
        return default
    value = safe_files.read_json(path, MEND)
    if not isinstance(value, type(default)):
        kind = type(default).__name__
        raise UserError(f"{path}: holds no {kind} but {str(value)[:40]!r}; {MEND}")
    return value


def read_results(run: Path) -> dict[str, dict[str, Any]]:
    """The content of eval.json, scores by stage and task; empty without one.

    Raises UserError as read_json does, and for a stage or task that holds no scores."""
    results = read_json(run / EVAL, {})
    for stage, tasks in results.items():
        for task, entry in tasks.items() if isinstance(tasks, dict) else [(tasks, None)]:
            if not isinstance(entry, dict):
                raise UserError(f"{run / EVAL}: {stage}: {task}: holds no scores; {MEND}")
    return results


def finished_stages(run: Path) -> dict[str, str]:
    """The stages that are through, each with its last checkpoint relative to the run folder.

    Raises UserError as read_json does, and for a checkpoint outside of the run's own."""
    finished = read_json(run / FINISHED, {})
    for stage, place in finished.items():
        parts = Path(place).parts if isinstance(place, str) else ()
        # joined to the run folder: an absolute path or `..` would name a model from anywhere
        if parts[:1] != ("checkpoints",) or ".." in parts:
            raise UserError(
                f"{run / FINISHED}: {stage}: {place!r} is no folder below checkpoints/; mend or "
                "remove it"
            )
    return finished


def read_config(run: Path) -> dict[str, Any]:
    """The content of a run directory's config.yaml, with today's keys; empty without one.

    Raises UserError for a file that is no YAML of options."""
    path = run / CONFIG
    settings = safe_files.read_yaml(path) or {} if os.path.lexists(path) else {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise UserError(f"{path}: holds no options; {MEND}")
    return with_new_keys(settings)


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
    """The JSON objects of a .jsonl file; other lines are skipped, with a warning.

    Without one a last line that has no end: a run is writing it, or was killed over it. Yields
    nothing when there is no such file. Raises UserError for what is no regular file."""
    if not os.path.lexists(path):
        return
    for number, line in enumerate(safe_files.read_lines(path), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and safe_files.is_shallow(row):
            yield row
        elif line.endswith("\n"):
            _warn(path, number)


@cache  # once for a line, however often its file is read
def _warn(path: Path, line: int) -> None:
    logger.warning("%s, line %d: is no JSON object and is skipped", path, line)


def cut_lines(path: Path, stage: str, last_step: int) -> None:
    """Drop the lines of `stage` after `last_step`, so that a resumed run writes them once."""
    if path.exists():
        kept = (row for row in read_lines(path) if not _is_after(row, stage, last_step))
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def _is_after(row: Mapping[str, Any], stage: str, last_step: int) -> bool:
    """Whether a row is of a later step of the stage; one without a step cannot be kept either."""
    step = row.get("step")
    return row.get("stage") == stage and not (safe_files.is_number(step) and step <= last_step)


def checkpoint_path(run: Path, stage: str, step: int) -> Path:
    """Where the checkpoint of a stage's step lies."""
    return run / "checkpoints" / stage / f"step-{step}"


def checkpoints(run: Path, stage: str) -> list[Path]:
    """The stage's checkpoints, lowest step first.

    Folders being written have other names, so whatever is found was complete."""
    found = [
        (int(path.name.removeprefix("step-")), path)
        for path in (run / "checkpoints" / stage).glob("step-*")
        if path.name.removeprefix("step-").isdecimal()
    ]
    return [path for _, path in sorted(found)]


def newest_checkpoint(run: Path, stage: str) -> Path | None:
    """The stage's checkpoint of the highest step; None when there is none."""
    return next(iter(checkpoints(run, stage)[::-1]), None)


def latest_valid_checkpoint(
    run: Path, stage: str, say: Callable[[str], None], unusable: Callable[[Path], str | None]
) -> Path | None:
    """The newest checkpoint whose files are as they were written and can be restored; None when
    there is none. unusable: what is wrong with the content of one whose checksums are right.

    One that is damaged is reported and renamed to step-N.damaged."""
    for path in reversed(checkpoints(run, stage)):
        wrong = find_corruption(path) or unusable(path)
        if wrong is None:
            return path
        say(quarantine(path, wrong))
    return None


def quarantine(checkpoint: Path, wrong: str) -> str:
    """Rename a damaged checkpoint to step-N.damaged; returns a line about it."""
    aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    number = 1
    while os.path.lexists(aside):  # a file, a link, or a folder that cannot be removed
        number += 1
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged-{number}")
    if checkpoint.exists():
        checkpoint.replace(aside)
    return f"{checkpoint}: {wrong}; kept as {aside.name}, going on from the checkpoint before it"


def atomic_rename(scratch: Path, final: Path) -> None:
    """Rename a finished folder to its place, replacing an older one of the same name."""
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.with_name(f".{final.name}.old")
    if final.exists():
        final.replace(old)  # a rename onto a full folder fails
    scratch.replace(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)
