"""Launcher for Slurm jobs through submitit."""

import shutil
import signal
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.sweeps.launchers.base import ClusterTask, Start

_POLL_S = 1.0  # each poll calls sacct


def check_cluster() -> None:
    """Raise UserError without Slurm: submitit would then start all runs locally at once."""
    for name in ("sbatch", "srun"):
        if shutil.which(name) is None:
            raise UserError(
                f"launcher=submitit: {name} is not installed here; use launcher=local, or submit "
                "from a Slurm machine"
            )


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """Return the function that submits a command; same arguments as local.connect.

    folder: shared by the nodes. resources: submitit parameters (timeout_min, gpus_per_node,
    slurm_partition, ...). Raises UserError for an unknown resource."""
    try:
        executor = import_module("submitit").AutoExecutor(folder / "submitit")
        executor.update_parameters(**resources)
    except (NameError, ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"resources: submitit does not accept them ({reason})") from error
    return lambda command: _SubmittedRun(executor.submit(_ResumableTask(command)))


class _ResumableTask(ClusterTask):
    def checkpoint(self) -> Any:
        """Stop the run and resubmit it. submitit calls this before a timeout or preemption."""
        self.stop_and_wait()
        return import_module("submitit.helpers").DelayedSubmission(_ResumableTask(self.command))


class _SubmittedRun:
    def __init__(self, job: Any) -> None:
        self.job = job

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        errors = import_module("submitit.core.utils")
        try:
            return self.job.result()
        except errors.FailedJobError:
            return 1  # the task failed, not the run
        except errors.UncompletedJobError:
            return -signal.SIGKILL  # no result: killed, canceled, or the node died

    def terminate(self) -> None:
        self.job.cancel(check=False)

    def wait(self) -> None:
        while not self.job.done(force_check=True):
            time.sleep(_POLL_S)
