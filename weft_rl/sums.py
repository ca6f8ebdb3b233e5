"""A folder's checksums, as `sha256sum -c` reads them, and files that stay after a power failure."""

import os
from hashlib import file_digest
from pathlib import Path

SUMS = "SHA256SUMS"


def seal(folder: Path) -> None:
    """Write the checksums of all files of a folder into it, and have everything on the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{_digest(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in (*files, folder / SUMS, *folders, folder):
        sync(path)


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, in words; None when every file is as it was."""
    sums = folder / SUMS
    if not sums.exists():
        return f"{SUMS} is missing"
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines:
        return f"{SUMS} is empty"
    for line in lines:
        digest, _, name = line.partition("  ")
        if ".." in Path(name).parts or Path(name).is_absolute():
            return f"{SUMS} names {name}, which is outside of the folder"
        if not (folder / name).is_file():
            return f"{name or SUMS} is missing"
        if _digest(folder / name) != digest:
            return f"{name} does not match its checksum"
    return None


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
