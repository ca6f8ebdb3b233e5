"""Processes of this machine."""

import fcntl
import subprocess
from collections.abc import Mapping
from pathlib import Path

from weft_rl.errors import UserError
from weft_rl.sweeps.launchers.base import Command, Start, spawn


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """What starts a command here.

    folder: the sweep's logs, where a launcher may keep files of its own; resources: what each
    command asks for, here nothing."""
    return _start


def _start(command: Command) -> subprocess.Popen[bytes]:
    """Raises UserError when another process is running the command."""
    with command.log.open("ab") as log:
        try:
            # the process inherits the lock with its output and holds it for as long as it lives:
            # after `kill -9` of the sweep its runs go on, and must not be started again
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{command.log}: another process is running {command.log.stem}; wait for it or "
                "stop it"
            ) from error
        return spawn(command, log)
