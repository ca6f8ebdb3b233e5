"""Room on the disk for a checkpoint, and what is said when there is none."""

import shutil
from pathlib import Path

from torch import nn

from weft_rl.cli import full_disk

# Beside the weights: states of the loop, lists of files, blocks that are filled in part.
_SLACK = 2**20


def checkpoint_bytes(model: nn.Module, last: Path | None) -> int:
    """What a checkpoint will take: as much as the last one, or what the weights say.

    Without a last one: the weights saved, which are the adapters' if there are any, and Adam's two
    moments of those that are trained."""
    if last is not None:
        files = (path for path in last.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files) + _SLACK
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    trained = sum(size for size, trains in sizes if trains)
    adapters = getattr(model, "peft_config", None) is not None
    saved = trained if adapters else sum(size for size, _ in sizes)
    return saved + 2 * trained + _SLACK


def lack_of_space(folder: Path, needed: int, error: Exception | None = None) -> str | None:
    """What is said of a disk that is too full for `needed` bytes in `folder`; None where it is not.

    error: what writing ended with, which then tells alone: a part may have been written."""
    free = shutil.disk_usage(folder).free
    is_full = free < needed if error is None else full_disk(error) is not None
    if not is_full:
        return None
    return f"the disk is full: {_mib(needed)} are needed and {_mib(free)} free in {folder}"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
