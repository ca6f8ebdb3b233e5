"""Writing files and folders that are complete or absent, also after a kill or a power failure."""

import glob
import json
import os
import shutil
from pathlib import Path
from typing import Any

import psutil


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, flushed, then renamed.

    Raises OSError with the path of the target."""
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of killed processes."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = part.name.rsplit(".", 2)[1]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def atomic_rename(scratch: Path, final: Path) -> None:
    """Rename a complete folder to its place, replacing an older one of the same name."""
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.with_name(f".{final.name}.old")
    if final.exists():
        final.replace(old)  # a rename onto a folder that is not empty fails
    scratch.replace(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)
