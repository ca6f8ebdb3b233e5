"""Slurm jobs, through submitit."""

import shutil
import signal
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.sweeps.launchers.base import ClusterTask, Start

_POLL_S = 1.0  # each poll of a job calls sacct


def check_cluster() -> None:
    """Raise UserError without Slurm: submitit would start all runs on this machine at once."""
    for name in ("sbatch", "srun"):
        if shutil.which(name) is None:
            raise UserError(
                f"launcher=submitit: {name} is not installed here; use launcher=local, or submit "
                "from a Slurm machine"
            )


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """Return the function that submits a command, with the arguments of local.connect.

    resources: submitit's parameters (timeout_min, gpus_per_node, slurm_partition, ...). The folder
    must be shared by the nodes. Raises UserError for an unknown resource."""
    try:
        executor = import_module("submitit").AutoExecutor(folder / "submitit")
        executor.update_parameters(**resources)
    except (NameError, ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"resources: submitit does not accept them ({reason})") from error
    return lambda command: _SubmittedRun(executor.submit(_ResumableTask(command)))


class _ResumableTask(ClusterTask):
    def checkpoint(self) -> Any:
        """Stop the run and resubmit it; submitit calls this before the time limit or preemption."""
        self.stop_and_wait()
        return import_module("submitit.helpers").DelayedSubmission(_ResumableTask(self.command))


class _SubmittedRun:
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
            return 1  # an error of the task, not of the run
        except errors.UncompletedJobError:
            return -signal.SIGKILL  # no result: killed, cancelled, or its node is lost

    def terminate(self) -> None:
        self.job.cancel(check=False)

    def wait(self) -> None:
        while not self.job.done(force_check=True):
            time.sleep(_POLL_S)
