"""A run as a process: its words, its log and how it is started wherever it is to run."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol


@dataclass(frozen=True)
class Command:
    """What is executed, in which folder, what it writes to, and its threads."""

    words: Sequence[str]
    folder: Path  # absolute: where relative paths among the words begin
    log: Path  # absolute; written on at its end
    threads: int | str  # OMP_NUM_THREADS


class Running(Protocol):
    """A command that has been started; a subprocess.Popen is one."""

    def poll(self) -> int | None:
        """Its exit status, below 0 if it was killed; None while it waits or runs."""
        ...

    def terminate(self) -> None:
        """Ask it to stop with a checkpoint; returns at once."""
        ...

    def wait(self) -> object:
        """Wait until it has stopped."""
        ...


Start = Callable[[Command], Running]


def spawn(command: Command, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the command here, with its open log."""
    return subprocess.Popen(
        [*command.words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=command.folder,
        env=os.environ | {"OMP_NUM_THREADS": str(command.threads)},
        # signals to the group reach the sweep or its launcher alone, which pass them on: a second
        # one, after its own, would end a run before its checkpoint is written
        process_group=0,
    )


class Forwarding:
    """The command in the process of a cluster's task, which gets the cluster's signals."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.asked = False

    def __call__(self) -> int:
        """Run it to its end; returns its status. SIGTERM is passed on, so that it can go on later.

        Whatever else ends this call stops the command first."""
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
        """Ask the command to stop, once: asked again, it would end before its checkpoint."""
        if self.process is not None and not self.asked:
            self.asked = True
            self.process.terminate()

    def stopped(self) -> None:
        """Ask the command to stop and wait; may be called while the call above waits."""
        self.stop()
        if self.process is not None and self.process.returncode is None:
            # the status is left to the call above, which holds Popen's lock
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
