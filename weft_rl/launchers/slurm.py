"""Slurm's jobs, through submitit; where there is no Slurm, submitit's own local processes."""

import signal
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.launchers.command import Command, Forwarding, Running, Start

_POLL_S = 1.0  # a look at a job is a call of Slurm's sacct


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """What submits a command; arguments as local.connect has them.

    resources are submitit's parameters: timeout_min, gpus_per_node, slurm_partition, ... The folder
    must be one that the nodes share. Raises UserError for one that there is not."""
    executor = import_module("submitit").AutoExecutor(folder / "submitit")
    try:
        executor.update_parameters(**resources)
    except (NameError, ValueError, TypeError) as error:
        raise UserError(
            f"resources: submitit does not take them ({' '.join(str(error).split())[:200]})"
        ) from error

    def start(command: Command) -> Running:
        return _Submitted(executor.submit(_Task(command)))

    return start


class _Task(Forwarding):
    """What a node runs; before its time is up it is stopped, and submitted again by submitit."""

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
