"""Checksums of a folder in `sha256sum -c` format."""

import os
from collections.abc import Collection
from functools import cache
from hashlib import file_digest
from pathlib import Path

from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_text
from weft_rl.runs.atomic_io import sync

SUMS = "SHA256SUMS"
_LONGEST_NAME = 255  # maximum bytes of a file name on Linux


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files of a folder into it, and flush everything to disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{_digest(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in (*files, folder / SUMS, *folders, folder):
        sync(path)


def find_corruption(folder: Path, names: Collection[str] | None = None) -> str | None:
    """Describe the first mismatch among `names` (None: all files); None if all files match."""
    if not os.path.lexists(folder / SUMS):
        return f"{SUMS} is missing"
    try:
        lines = read_text(folder / SUMS).splitlines()
    except UserError:
        return f"{SUMS} cannot be read"
    if not lines:
        return f"{SUMS} is empty"
    for line in lines:
        # the separator is two characters; the second is * for files hashed in binary mode
        digest, name = line[:64], line[66:]
        if names is not None and name not in names:
            continue
        if len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
            return f"{SUMS} has a line that is too long"
        if ".." in Path(name).parts or Path(name).is_absolute():
            return f"{SUMS} names {name}, which is outside of the folder"
        if not (folder / name).is_file():
            return f"{name or SUMS} is missing"
        if _digest(folder / name) != digest:
            return f"{name} does not match its checksum"
    return None


def verify_checksums(folder: Path) -> None:
    """Verify all files of a folder with checksums. Raises UserError for the first mismatch."""
    if (folder / SUMS).exists():
        _require_intact(folder, find_corruption(folder))


def verify_weights(folder: Path) -> None:
    """Verify a folder's weights, once per process and only on local rank 0. Raises UserError."""
    if not (folder / SUMS).exists() or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    stats = [(path, path.stat()) for path in sorted(folder.glob("*.safetensors"))]
    files = tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    _require_intact(folder, _corrupt_weights(folder, files))


@cache
def _corrupt_weights(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str | None:
    """Cache by file sizes and times, so that rewritten files are verified again."""
    return find_corruption(folder, [path.name for path, *_ in files])


def _require_intact(folder: Path, corruption: str | None) -> None:
    if corruption is not None:
        raise UserError(f"{folder}: {corruption}; copy it again")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
