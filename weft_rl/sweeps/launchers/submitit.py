"""Slurm's jobs, through submitit; where cluster=local is asked for, submitit's local processes."""

import os
import shutil
import signal
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.sweeps.launchers.base import Command, Forwarding, Running, Start

_POLL_S = 1.0  # a look at a job is a call of Slurm's sacct


def check_cluster(resources: Mapping[str, int | str]) -> None:
    """Raise UserError where runs would go to Slurm and there is none: submitit itself then runs
    them here, all at once."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if "cluster" not in resources and missing:
        raise UserError(
            f"launcher=submitit: no {missing[0]} here; use launcher=local, or submit where Slurm is"
        )


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """What submits a command; arguments as local.connect has them.

    resources are submitit's parameters: timeout_min, gpus_per_node, slurm_partition, ..., and
    cluster: one of submitit's executors instead of slurm. The folder must be one that the nodes
    share. Raises UserError for one that there is not."""
    parameters = dict(resources)
    cluster = str(parameters.pop("cluster", "slurm"))
    try:
        executor = import_module("submitit").AutoExecutor(folder / "submitit", cluster)
        executor.update_parameters(**parameters)
    except (NameError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"resources: submitit does not take them ({' '.join(str(error).split())[:200]})"
        ) from error

    def start(command: Command) -> Running:
        if cluster != "local":
            return _Submitted(executor.submit(_Task(command)))
        # Ctrl-C is for the sweep, which then stops its runs. Submitit's processes would end at
        # once, with tracebacks, and leave the runs: they inherit that the signal is held back
        interrupts: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
        held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return _Here(executor.submit(_Task(command)), interrupts)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)  # one that came meanwhile is told now
            signal.signal(signal.SIGINT, before)

    return start


class _Task(Forwarding):
    """What a node runs; before its time is up it is stopped, and submitted again by submitit."""

    def __call__(self) -> int:
        if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []):
            # for this process alone: the run takes it, whoever sends it one
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return super().__call__()

    def checkpoint(self) -> Any:
        """Called by submitit on the signal before the time limit, or when preempted."""
        self.stopped()
        return import_module("submitit.helpers").DelayedSubmission(_Task(self.command))


class _Submitted:
    """A job as a running command."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        errors = import_module("submitit.core.utils")
        try:
            return self.job.result()
        except errors.FailedJobError:
            return 1  # an error in the task itself, none of the run's
        except errors.UncompletedJobError:
            return -signal.SIGKILL  # it left no result: killed, cancelled or its node lost

    def terminate(self) -> None:
        self.job.cancel(check=False)

    def wait(self) -> None:
        while not self.job.done(force_check=True):
            time.sleep(_POLL_S)


class _Here(_Submitted):
    """A job of submitit's local executor; its id is that of its process.

    interrupts: what came while it was submitted, and is raised once the sweep has the job, so that
    it can stop it."""

    def __init__(self, job: Any, interrupts: list[int]) -> None:
        super().__init__(job)
        self.interrupts = interrupts

    def poll(self) -> int | None:
        if self.interrupts:
            self.interrupts.clear()
            raise KeyboardInterrupt
        return super().poll()

    def terminate(self) -> None:
        if not self.job.done():
            # submitit's own cancel would kill the task a second later, and not the run
            os.kill(int(self.job.job_id), signal.SIGTERM)

    def wait(self) -> None:
        while not self.job.done():
            time.sleep(_POLL_S)
            self.terminate()  # the first one is lost on a task that has not begun its run
