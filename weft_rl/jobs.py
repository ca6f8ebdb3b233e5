"""Several runs at a time, each a process of its own with a log."""

import fcntl
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from weft_rl.errors import UserError

LOGS = "logs"
_POLL_S = 0.2  # short against a run, long against the work of asking
_TAIL = 4096  # bytes of a log that hold its last line


@dataclass(frozen=True)
class Job:
    """A run: its name, which is its folder's, and the arguments of `weft_rl.pipeline`."""

    name: str
    arguments: Sequence[str]


def run_jobs(
    jobs: Sequence[Job], folder: Path, workers: int, threads: int, total: int
) -> dict[str, int]:
    """Run the jobs in `folder`, `workers` at a time with `threads` each; exit statuses by name.

    total counts jobs done earlier too. One that fails does not stop the others. Whatever stops
    this function stops the running ones first, by SIGTERM, so that they leave a checkpoint. Raises
    UserError when another process has one of the jobs in hand."""
    waiting = deque(jobs)
    running: dict[str, subprocess.Popen[bytes]] = {}
    statuses: dict[str, int] = {}
    begun = {}
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
    quiet = not Console().is_terminal
    with Progress(*columns, TimeElapsedColumn(), transient=True, disable=quiet) as progress:
        bar = progress.add_task("", total=total, completed=total - len(jobs))
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.popleft()
                    begun[job.name] = time.monotonic()
                    running[job.name] = _start(job, folder, threads)
                    progress.update(bar, description=f"running {', '.join(running)}")
                for name in [
                    name for name, process in running.items() if process.poll() is not None
                ]:
                    statuses[name] = running.pop(name).returncode
                    seconds = time.monotonic() - begun[name]
                    how = "done" if statuses[name] == 0 else f"stopped, status {statuses[name]},"
                    progress.console.print(f"{name}: {how} after {seconds:.0f} s", highlight=False)
                    progress.advance(bar)
                time.sleep(_POLL_S)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    return statuses


def _start(job: Job, folder: Path, threads: int) -> subprocess.Popen[bytes]:
    path = folder / LOGS / f"{job.name}.log"
    command = [sys.executable, "-m", "weft_rl.pipeline", *job.arguments]
    with path.open("ab") as log:
        try:
            # the process inherits the lock with its output and holds it for as long as it lives:
            # after `kill -9` of the comparison its runs go on, and must not be started again
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"out={folder}: another process is running {job.name}; wait for it or stop it"
            ) from error
        return subprocess.Popen(
            [*command, f"out={folder / job.name}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            # Ctrl-C reaches the comparison alone: a second signal, after its own, would end a run
            # before its checkpoint is written
            process_group=0,
        )


def last_line(log: Path) -> str:
    """The last line of a log that says something; empty when there is none."""
    text = log.read_bytes()[-_TAIL:].decode("utf-8", "replace") if log.exists() else ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def has_cuda() -> bool:
    """Whether runs would find a GPU; asked in a process of its own, so that torch stays there."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
