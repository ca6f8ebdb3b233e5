"""Ray's tasks: on the cluster that RAY_ADDRESS names or that this machine is part of, or here."""

import signal
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.sweeps.launchers.base import Command, Forwarding, Start


def connect(folder: Path, resources: Mapping[str, int | str]) -> Start:
    """What hands a command to Ray; arguments as local.connect has them.

    resources are the options of a Ray task: num_cpus, num_gpus, ... The folder must be one that the
    nodes share. Raises UserError for one that there is not."""
    ray = import_module("ray")
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    try:
        # tried again by the sweep, which knows what can help
        task = ray.remote(_task).options(max_retries=0, **resources)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"resources: Ray does not take them ({' '.join(str(error).split())[:200]})"
        ) from error
    return lambda command: _Submitted(task.remote(command))


def _task(command: Command) -> int:
    return Forwarding(command)()


class _Submitted:
    """A task as a running command."""

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
            return 1  # an error in the task itself, none of the run's
        except errors.RayError:
            return -signal.SIGKILL  # its worker or node is lost

    def terminate(self) -> None:
        import_module("ray").cancel(self.reference)

    def wait(self) -> None:
        import_module("ray").wait([self.reference])
