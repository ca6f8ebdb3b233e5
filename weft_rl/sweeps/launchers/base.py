"""A run as a process: its arguments, its log, and signals passed on to it."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol


@dataclass(frozen=True)
class Command:
    """A command line with its working directory, log file and number of threads."""

    arguments: Sequence[str]
    folder: Path  # absolute; relative paths in the arguments start here
    log: Path  # absolute; appended to
    threads: int | str  # OMP_NUM_THREADS


class Running(Protocol):
    """A started command; a subprocess.Popen is one."""

    def poll(self) -> int | None:
        """The exit status, below 0 if it was killed; None while it is queued or runs."""
        ...

    def terminate(self) -> None:
        """Ask it to save a checkpoint and stop; returns at once."""
        ...

    def wait(self) -> object:
        """Wait until it has stopped."""
        ...


Start = Callable[[Command], Running]


def spawn(command: Command, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the command on this machine with its open log."""
    return subprocess.Popen(
        [*command.arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=command.folder,
        env=os.environ | {"OMP_NUM_THREADS": str(command.threads)},
        # a signal to the group (Ctrl-C) must reach the run once, from its launcher: a second one
        # would end it before its checkpoint is written
        process_group=0,
    )


class ClusterTask:
    """A command inside the task of a cluster, which receives the cluster's signals."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def __call__(self) -> int:
        """Run the command to its end and return its status; SIGTERM is passed on to it."""
        with self.command.log.open("ab") as log:
            self.process = spawn(self.command, log)
        before = signal.signal(signal.SIGTERM, lambda *_: self.stop())
        try:
            return self.process.wait()
        finally:
            self.stop()
            self.process.wait()
            signal.signal(signal.SIGTERM, before)

    def stop(self) -> None:
        """Terminate the command, once: a second signal would end it before its checkpoint."""
        if self.process is not None and not self.stopping:
            self.stopping = True
            self.process.terminate()

    def stop_and_wait(self) -> None:
        """Terminate the command and wait; a signal handler may call this during __call__."""
        self.stop()
        if self.process is not None and self.process.returncode is None:
            # Popen.wait would deadlock: __call__ holds its lock
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
