"""Launcher for local processes."""

import fcntl
import subprocess
from collections.abc import Mapping
from pathlib import Path

from weft_rl.errors import UserError
from weft_rl.sweeps.launchers.base import Command, Start, spawn


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """Return the function that starts a command. folder, resources: unused here."""
    return start


def start(command: Command) -> subprocess.Popen[bytes]:
    """Start a command. Raises UserError if another process is running it."""
    with command.log.open("ab") as log:
        try:
            # the run inherits the lock: if the sweep is killed, its runs continue and keep their
            # logs locked, so a second sweep cannot start them again
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{command.log}: another process is running {command.log.stem}; wait for it or "
                "stop it"
            ) from error
        return spawn(command, log)
