"""A run as a process: arguments, log, forwarded signals."""

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
    folder: Path  # absolute working directory
    log: Path  # absolute; opened in append mode
    threads: int | str  # OMP_NUM_THREADS


class Running(Protocol):
    """A started command, for example a subprocess.Popen."""

    def poll(self) -> int | None:
        """Return the exit status, below 0 if killed; None while queued or running."""
        ...

    def terminate(self) -> None:
        """Request a checkpoint and exit, without waiting."""
        ...

    def wait(self) -> object:
        """Wait for the exit."""
        ...


Start = Callable[[Command], Running]


def spawn(command: Command, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the command on this machine; stdout and stderr go to `log`."""
    return subprocess.Popen(
        [*command.arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=command.folder,
        env=os.environ | {"OMP_NUM_THREADS": str(command.threads)},
        # the launcher forwards Ctrl-C once; a second signal from the group would kill the
        # run before it saves a checkpoint
        process_group=0,
    )


class ClusterTask:
    """A command in a cluster task, which receives the cluster's signals."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def __call__(self) -> int:
        """Run the command, forward SIGTERM to it, and return its exit status."""
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
        """Terminate the command once: a second signal would kill it before its checkpoint."""
        if self.process is not None and not self.stopping:
            self.stopping = True
            self.process.terminate()

    def stop_and_wait(self) -> None:
        """Terminate the command and wait. Safe in a signal handler during __call__."""
        self.stop()
        if self.process is not None and self.process.returncode is None:
            # Popen.wait would deadlock, because __call__ holds its lock
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
