"""Checks of memory and sequence length before loading weights or generating."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from weft_rl.config.model import LoraConfig
from weft_rl.errors import UserError
from weft_rl.families.shape import shape_of

_GIB = 2**30
# Messages of untyped errors: CUDA, cuBLAS, CPU allocator, operating system.
_ALLOCATION_ERRORS = ("out of memory", "ALLOC_FAILED", "allocate memory")
# In memory.stat: page cache and kernel tables, which the kernel reclaims on demand.
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")


def require_memory(
    folder: Path, dtype: torch.dtype, device: torch.device, *, nf4: bool = False
) -> None:
    """Raise UserError if the weights alone exceed the free memory."""
    shape, free = shape_of(folder, LoraConfig(0)), free_memory(device)
    nf4_bytes = replace(shape, weights="nf4").weight_bytes()
    needed = nf4_bytes if nf4 else shape.num_params * dtype.itemsize
    if needed > free:
        raise UserError(
            f"model={folder}: its weights need {needed / _GIB:.1f} GiB in "
            f"{'nf4' if nf4 else dtype}, {device} has {free / _GIB:.1f} GiB free; see weft-rl plan "
            "for the needs of a run and what to change"
        )


def check_length(
    model_config: Any, lengths: Mapping[str, int], gen_length: int, option: str, fix: str
) -> None:
    """Raise UserError if the longest prompt plus a completion exceeds the model's positions.

    lengths: tokens per prompt. option: the `key=value` of the completion length."""
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is None or not lengths:
        return
    record = max(lengths, key=lengths.__getitem__)
    if lengths[record] + gen_length > positions:
        raise UserError(
            f"{option}: exceeds max_position_embeddings={positions} of the model with the "
            f"{lengths[record]} tokens of prompt {record}; {fix}"
        )


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device, including PyTorch's reserved memory."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    return available_memory()


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes available without swapping, within cgroup v2 limits."""
    free = [psutil.virtual_memory().available]
    mount, groups = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    paths = [line[3:] for line in _text(groups).splitlines() if line.startswith("0::")]
    for path in paths:
        folder = mount / path.lstrip("/")
        # a limit applies to all cgroups below it
        for group in (folder, *folder.parents):
            limit, used = (_text(group / f"memory.{name}").strip() for name in ("max", "current"))
            if limit.isdigit() and used.isdigit():  # neither "max" nor the root
                counts = dict(line.split() for line in _text(group / "memory.stat").splitlines())
                cached = sum(int(counts.get(name, 0)) for name in _RECLAIMABLE)
                free.append(max(int(limit) - int(used) + cached, 0))
            if group == mount:
                break
    return min(free)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on a device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    is_system = isinstance(error, OSError | RuntimeError)
    return is_system and any(text in str(error) for text in _ALLOCATION_ERRORS)
