"""Process ranks and their devices."""

import os
import time
from collections.abc import Callable
from re import fullmatch
from typing import TYPE_CHECKING

from weft_rl.errors import Interrupted, UserError

if TYPE_CHECKING:
    import torch

_POLL_S = 0.5  # short compared with what processes wait for


def rank_and_world() -> tuple[int, int]:
    """Return the rank and the number of processes, as set by torchrun; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another process, without a collective's timeout.

    The launcher stops all processes if one fails. Raises Interrupted if the launcher has ended."""
    launcher = os.getppid()
    while not condition():
        if os.getppid() != launcher:
            raise Interrupted("the launcher of the processes has ended")
        time.sleep(_POLL_S)


def resolve_device(name: str) -> "torch.device":
    """Return find_device(name), and make a GPU the current device. Raises UserError."""
    import torch

    device = find_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def find_device(name: str) -> "torch.device":
    """Return the device for `device=`; each process uses the GPU of its local rank.

    Allocates no GPU memory. Raises UserError for a device that this machine lacks."""
    import torch  # --help must not import torch

    if not fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise UserError(f"device={name}: must be auto, cpu, cuda or cuda:N")
    has_cuda, count = torch.cuda.is_available(), torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not has_cuda):
        return torch.device("cpu")
    if not has_cuda:
        raise UserError(f"device={name}: no CUDA device is available; use device=cpu")
    given = name.partition(":")[2]
    device = torch.device("cuda", int(given or os.environ.get("LOCAL_RANK", "0")))
    if device.index >= count:
        raise UserError(
            f"device={device}: there are {count} CUDA devices; start one process per device"
        )
    return device
