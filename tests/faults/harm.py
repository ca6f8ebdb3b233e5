"""What is done to a process before its command, or to a file between two commands."""

import ctypes
import os
import random
import time
from pathlib import Path

# Of Linux's interface to a process's capabilities.
_CAPABILITIES_V3 = 0x20080522


def jump_clock() -> None:
    """Let the time of day jump by up to a day either way at every look; the process's own."""
    rng, now = random.Random(0), time.time
    time.time = lambda: now() + rng.uniform(-86400, 86400)


def give_up_rights() -> None:
    """Let read-only folders be so for root as well, who may otherwise write anywhere."""
    if os.getuid() != 0:
        return
    # effective, permitted and inheritable ones, two words each: none at all
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BREAKS = {"cut": cut, "flipped": flip, "missing": Path.unlink}
