"""Launchers of a sweep's runs: local processes, Slurm jobs through submitit, Ray tasks."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from weft_rl.errors import UserError

_POLL_S = 1.0  # each poll of a Slurm job calls sacct
_STEP_S = 0.1  # short compared with a run
Resources = Mapping[str, int | str]


@dataclass(frozen=True)
class Command:
    """A command line with its working directory, log file and number of threads."""

    arguments: Sequence[str]
    folder: Path  # absolute working directory
    log: Path  # absolute; opened in append mode
    threads: int | str  # OMP_NUM_THREADS


@dataclass(frozen=True)
class ClusterRun:
    """A cluster's task. failed: error of the task, not of the run. lost: the task has no result."""

    done: Callable[[bool], bool]  # True: without a cached state
    result: Callable[[], int]
    cancel: Callable[[], object]
    failed: type[Exception]
    lost: type[Exception]

    def poll(self) -> int | None:
        """Return the exit status, below 0 if killed; None while queued or running."""
        if not self.done(False):
            return None
        try:
            return self.result()
        except self.failed:
            return 1
        except self.lost:
            return -signal.SIGKILL  # killed, canceled, or the node died

    def terminate(self) -> None:
        """Request a checkpoint and exit, without waiting."""
        self.cancel()

    def wait(self) -> None:
        """Wait for the exit."""
        while not self.done(True):
            time.sleep(_POLL_S)


Running = subprocess.Popen[bytes] | ClusterRun
Start = Callable[[Command], Running]


def connect(launcher: str, folder: Path, resources: Resources) -> Start:
    """Return the function that starts a command with a launcher: local, submitit or ray.

    folder: for files of the launcher, shared by the nodes of a cluster. resources: parameters of
    submitit (timeout_min, gpus_per_node, ...) or options of Ray's tasks (num_gpus, ...). Raises
    UserError for an unknown resource."""
    if launcher == "local":
        return start_local
    try:
        return {"submitit": _slurm_jobs, "ray": _ray_tasks}[launcher](folder, resources)
    except (NameError, ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"resources: {launcher} does not accept them ({reason})") from error


def start_local(command: Command) -> Running:
    """Start a command as a process. Raises UserError if another process is running it."""
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
        return _spawn(command, log)


def _spawn(command: Command, log: IO[bytes]) -> subprocess.Popen[bytes]:
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


def _slurm_jobs(folder: Path, resources: Resources) -> Start:
    executor = import_module("submitit").AutoExecutor(folder / "submitit")
    executor.update_parameters(**resources)
    errors = import_module("submitit.core.utils")

    def start(command: Command) -> Running:
        job = executor.submit(ClusterTask(command))
        cancel, failed = (lambda: job.cancel(check=False)), errors.FailedJobError
        return ClusterRun(job.done, job.result, cancel, failed, errors.UncompletedJobError)

    return start


def _ray_tasks(_: Path, resources: Resources) -> Start:
    """Return `start` for the cluster of RAY_ADDRESS or of this machine, else local tasks."""
    ray, errors = import_module("ray"), import_module("ray.exceptions")
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    task = ray.remote(lambda command: ClusterTask(command)())
    task = task.options(max_retries=0, **resources)  # the sweep retries

    def start(command: Command) -> Running:
        reference, canceled = task.remote(command), list[bool]()
        future = reference.future()

        def cancel() -> None:
            canceled.append(True)
            ray.cancel(reference)

        def is_done(_: bool) -> bool:
            if canceled and not future.done():
                ray.cancel(reference)  # on a busy machine the first interrupt may be lost
            return future.done()

        return ClusterRun(is_done, future.result, cancel, errors.RayTaskError, errors.RayError)

    return start


class ClusterTask:
    """A command in a cluster task, which receives the cluster's signals."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def __call__(self) -> int:
        """Run the command, forward SIGTERM to it, and return its exit status."""
        with self.command.log.open("ab") as log:
            self.process = _spawn(self.command, log)
        before = signal.signal(signal.SIGTERM, lambda *_: self.stop())
        try:
            while self.process.poll() is None:
                time.sleep(_STEP_S)  # Ray cancels between instructions, not during a wait
            return self.process.returncode
        finally:
            self.stop()
            while self.process.poll() is None:
                with suppress(KeyboardInterrupt):  # of a repeated cancel
                    time.sleep(_STEP_S)
            signal.signal(signal.SIGTERM, before)

    def stop(self) -> None:
        """Terminate the command once: a second signal would kill it before its checkpoint."""
        if self.process is not None and not self.stopping:
            self.stopping = True
            self.process.terminate()

    def checkpoint(self) -> Any:
        """Stop the command and resubmit it. submitit calls this before a timeout or preemption."""
        self.stop()
        if self.process is not None and self.process.returncode is None:
            # a signal handler during __call__: Popen.wait would wait for a lock that poll may hold
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return import_module("submitit.helpers").DelayedSubmission(ClusterTask(self.command))
