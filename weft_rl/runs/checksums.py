"""A folder's checksums, as `sha256sum -c` reads them, and files that stay after a power failure."""

import os
import sys
from collections.abc import Collection
from functools import cache
from hashlib import file_digest
from pathlib import Path

from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_text

SUMS = "SHA256SUMS"
_WEIGHTS = ".safetensors"
_LONGEST_NAME = 255  # bytes, of a file on Linux
_LARGE = 2**31  # bytes; a core takes seconds to check them


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files of a folder into it, and have everything on the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{_digest(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in (*files, folder / SUMS, *folders, folder):
        sync(path)


def find_corruption(folder: Path, names: Collection[str] | None = None) -> str | None:
    """What is wrong with a sealed folder, in words; None when every file is as it was.

    names: of the files that are looked at; None for all."""
    sums = folder / SUMS
    if not os.path.lexists(sums):
        return f"{SUMS} is missing"
    try:
        lines = read_text(sums).splitlines()
    except UserError:
        return f"{SUMS} cannot be read"
    if not lines:
        return f"{SUMS} is empty"
    for line in lines:
        # two signs between: the second one is * where sha256sum was asked for binary files
        digest, name = line[:64], line[66:]
        if len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
            return f"{SUMS} holds a line that is too long"
        if names is not None and name not in names:
            continue
        if ".." in Path(name).parts or Path(name).is_absolute():
            return f"{SUMS} names {name}, which is outside of the folder"
        if not (folder / name).is_file():
            return f"{name or SUMS} is missing"
        if _digest(folder / name) != digest:
            return f"{name} does not match its checksum"
    return None


def verify_checksums(folder: Path) -> None:
    """Check a folder's files against its sums, where it has any; UserError names the first that
    differs."""
    if (folder / SUMS).exists():
        _refuse(folder, find_corruption(folder))


def verify_weights(folder: Path) -> None:
    """The same for its weights alone, before they are loaded: once in a process, and of the
    processes of a machine in the first one."""
    if not (folder / SUMS).exists() or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    found = [(path, path.stat()) for path in sorted(folder.glob(f"*{_WEIGHTS}"))]
    size = sum(stat.st_size for _, stat in found)
    if size > _LARGE and sys.stderr.isatty():
        sys.stderr.write(f"{folder}: checking {size / 2**30:.0f} GiB against {SUMS} ...\n")
    times = tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in found)
    _refuse(folder, _damage_of_weights(folder, times))


@cache
def _damage_of_weights(folder: Path, times: tuple[tuple[Path, int, int], ...]) -> str | None:
    """The times tell files that were written anew."""
    return find_corruption(folder, [path.name for path, *_ in times])  # others need not be there


def _refuse(folder: Path, wrong: str | None) -> None:
    if wrong is not None:
        raise UserError(f"{folder}: {wrong}; copy it again")


def sync(path: Path) -> None:
    """Return once a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
