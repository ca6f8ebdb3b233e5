"""What is done to a process before its command, or to a file between two commands."""

import os
import random
import resource
import time
from pathlib import Path

# A user without rights, on any system.
_NOBODY = 65534


def jump_clock() -> None:
    """Let the time of day jump by up to a day either way at every look; the process's own."""
    rng, now = random.Random(0), time.time
    time.time = lambda: now() + rng.uniform(-86400, 86400)


def give_up_rights() -> None:
    """Go on as a user who may write no folder of root's."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def limit_files(size: int) -> None:
    """Let no file grow beyond so many bytes: writing fails as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def cut(path: Path) -> None:
    """Take the file's second half away."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Turn a bit in the file's middle over."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    """Remove the file."""
    path.unlink()


BREAKS = {"cut": cut, "flipped": flip, "missing": remove}
