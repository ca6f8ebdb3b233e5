"""Exclusive lock of a run directory."""

import fcntl
import os
import re
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import psutil

from weft_rl.errors import UserError
from weft_rl.io.safe_files import regular_size


@contextmanager
def run_lock(run: Path) -> Generator[None]:
    """Lock a run directory, ignoring locks of dead processes. Raises UserError naming the owner."""
    path = run / ".lock"
    if os.path.lexists(path):
        regular_size(path, "remove it")
    with ExitStack() as stack:
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
        if not _locked(file):
            file.seek(0)
            owner = file.read().strip()
            dead = _is_dead(owner)
            if dead:
                # a forked child of the dead process may still hold the old file's lock
                path.unlink(missing_ok=True)
                file = stack.enter_context(path.open("a+", encoding="utf-8"))
            if not (dead and _locked(file)):
                raise UserError(
                    f"out={run}: {owner or 'another process'} is writing there; wait for it, stop "
                    "it, or choose another out"
                )
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        file.flush()
        yield


def _is_dead(owner: str) -> bool:
    match = re.match(r"process (\d+) on (\S+)", owner)
    if match is None or match[2] != socket.gethostname():
        return False
    return not psutil.pid_exists(int(match[1]))


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
