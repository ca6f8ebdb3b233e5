"""Launcher for Ray tasks: on the cluster of RAY_ADDRESS or of this machine, else locally."""

import signal
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.sweeps.launchers.base import ClusterTask, Command, Start


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """Return the function that submits a command to Ray; same arguments as local.connect.

    folder: shared by the nodes. resources: Ray task options (num_cpus, num_gpus, ...). Raises
    UserError for an unknown resource."""
    ray = import_module("ray")
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    try:
        task = ray.remote(_task).options(max_retries=0, **resources)  # the sweep retries
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"resources: Ray does not accept them ({reason})") from error
    return lambda command: _RayRun(task.remote(command))


def _task(command: Command) -> int:
    return ClusterTask(command)()


class _RayRun:
    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def poll(self) -> int | None:
        ray, errors = import_module("ray"), import_module("ray.exceptions")
        done, _ = ray.wait([self.reference], timeout=0)
        if not done:
            return None
        try:
            return ray.get(self.reference)
        except errors.TaskCancelledError:
            return -signal.SIGTERM
        except errors.RayTaskError:
            return 1  # the task failed, not the run
        except errors.RayError:
            return -signal.SIGKILL  # the worker or its node died

    def terminate(self) -> None:
        import_module("ray").cancel(self.reference)

    def wait(self) -> None:
        import_module("ray").wait([self.reference])
