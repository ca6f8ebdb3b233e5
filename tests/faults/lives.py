"""Commands of the package as forked processes that are killed at a chosen moment.

A server process imports torch and the stages once; a run is a fork of it, so that a life costs what
the run itself does. Every life has a session of its own, which a kill ends as a whole: a power cut
spares no helper process."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import psutil

# What the server imports: everything that a run of any stage needs, and this module's neighbours.
_PRELOADED = [
    "weft_rl.stages",
    "weft_rl.stages.evaluate",
    "weft_rl.compare",
    "weft_rl.reproduce.__main__",
    "lives",
]
# What Python itself tells of work on files; rename covers os.replace, and open every write.
_FILE_EVENTS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"})
# No run here takes a minute alone; a loaded machine may take ten times as long.
_HANG_S = 600.0


class Moment(NamedTuple):
    """When a life ends: so many seconds after its start, or before so many-th work on a file."""

    seconds: float | None = None
    file_event: int | None = None


class Life(NamedTuple):
    """How one process went: its exit status, negative for the signal that ended it, and its time.

    file_events: how often it worked on files under its folder; None for one that was killed."""

    status: int
    seconds: float
    output: str
    file_events: int | None


class Command(NamedTuple):
    module: str
    words: tuple[str, ...]
    folder: Path
    environment: dict[str, str]
    prepare: Any = None  # called in the process before the command; a function of a module


def live(command: Command, log: Path, moment: Moment | None = None) -> Life:
    started = start(command, log, moment)
    seconds = None if moment is None else moment.seconds
    begun = time.monotonic()
    try:
        started.join(_HANG_S if seconds is None else seconds)
        hangs = seconds is None and started.is_alive()
    finally:
        end_session(started)
    if hangs:
        raise TimeoutError(f"{command.module} {' '.join(command.words)}: hangs; see {log}")
    counted = log.with_suffix(".events")
    return Life(
        status=started.exitcode or 0,
        seconds=time.monotonic() - begun,
        output=log.read_text(errors="replace") if log.exists() else "",
        file_events=int(counted.read_text() or 0) if counted.exists() else None,
    )


def start(command: Command, log: Path, moment: Moment | None = None) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    log.with_suffix(".events").unlink(missing_ok=True)
    event = None if moment is None else moment.file_event
    process = context.Process(target=_run, args=(command, log, event))
    process.start()
    return process


def end_session(process: ForkServerProcess) -> None:
    if process.is_alive():
        process.kill()
    process.join()
    while members := [pid for pid in psutil.pids() if _session(pid) == process.pid]:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _session(pid: int) -> int | None:
    try:
        dead = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return None if dead else os.getsid(pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


def _run(command: Command, log: Path, last_event: int | None) -> None:
    os.setsid()
    os.environ.update(command.environment)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(target, stream)
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as the process lives
    counted = os.open(log.with_suffix(".events"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    events = _Events(command.folder, last_event)
    sys.addaudithook(events)
    if command.prepare is not None:
        command.prepare()
    module: Any = import_module(command.module)
    main = (
        module.main if hasattr(module, "main") else import_module(f"{command.module}.__main__").main
    )
    sys.argv = [command.module, *command.words]
    from weft_rl.cli import execute

    status = execute(command.module, main, command.words)
    os.write(counted, str(events.count).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


class _Events:
    """Counts work on files below a folder, and kills its process before the last one."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.root, self.last, self.count = str(folder), last, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS and str(arguments[0]).startswith(self.root):
            self.count += 1
            if self.count == self.last:
                # a run of a comparison takes the comparison along
                for pid in (os.getsid(0), os.getpid()):
                    os.kill(pid, signal.SIGKILL)
