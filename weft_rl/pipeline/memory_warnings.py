"""Too little memory: what is said of it before a model is loaded, and where it has run out."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from weft_rl.config.schema import RunConfig
from weft_rl.distributed import find_device, rank_and_world
from weft_rl.errors import OutOfMemory, UserError
from weft_rl.plan.command import cures_of
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plans

_MIB, _GIB = 2**20, 2**30
# As many parts of a plan, and as many of its cures, as fit a line that is read.
_SHOWN = 3
# Characters of the original error: an allocator's says first what it was asked for.
_ERROR = 300


def shortages(config: RunConfig, stages: Sequence[str]) -> list[str]:
    """A line on each of these stages whose plan is more than this process's device has free.

    They are for a warning: a plan is within some percent where that was measured, and knows the
    longest record that a run allows, not the longest that it has. Nothing is said of a model whose
    configuration is not here, nor where the launcher shards, as its file alone says how far."""
    from weft_rl.models.memory import free_memory  # a help text does not wait for torch

    device = find_device(config.device)
    free = free_memory(device)
    if free is None or _launcher_shards():
        return []
    options = _options(device.type)
    try:
        plans = [plan for plan in make_plans(config, options) if plan.stage in stages]
    except UserError:  # a hub id; a mistake in the options is the stage's to name
        return []
    lines = []
    for plan in plans:
        needed = sum(plan.memory.values())
        if needed > free:
            parts = sorted(plan.memory.items(), key=lambda part: -part[1])[:_SHOWN]
            largest = ", ".join(f"{name} {_size(size)}" for name, size in parts if size)
            advice = "; ".join(_changes(config, options, plan.stage, free)[:_SHOWN])
            lines.append(
                f"stage {plan.stage} may run out of memory: its plan is {_size(needed)} "
                f"({largest}), and {device} has {_size(free)} free; weft-rl plan says to change, "
                f"one after the other: {advice or 'the device'}"
            )
    return lines


@contextmanager
def running_out(config: RunConfig, stage: str, again: str) -> Generator[None]:
    """Run a stage, or "eval": an allocation that fails in it raises OutOfMemory.

    again: the arguments that go on with the run."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        from weft_rl.models.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        device = find_device(config.device)
        first = (str(error).splitlines() or [type(error).__name__])[0][:_ERROR]
        raise OutOfMemory(
            f"stage {stage}: {device} had too little memory ({first}); where more is free, go on "
            f"with: python -m weft_rl.pipeline {again}; with what is there, in another out: "
            f"{_cure(config, stage, device.type)}"
        ) from error


def _cure(config: RunConfig, stage: str, device_type: str) -> str:
    """What makes a stage need less; without plan's sizes, as where they fitted they were wrong."""
    if stage in ("base", "eval"):  # not planned
        return f"lower {stage}.batch_size={getattr(config, stage).batch_size}"
    try:
        lines = _changes(config, _options(device_type), stage, 0)
    except UserError:  # a hub id
        return f"weft-rl plan says of a model of this size what {stage} can do with less"
    changes = ", ".join(line.rpartition(":")[0] for line in lines)
    return f"change, one after the other as weft-rl plan has it: {changes or 'the device'}"


def _changes(config: RunConfig, options: PlanConfig, stage: str, room: float) -> list[str]:
    """Plan's cures that are options of a run."""
    found = (" ".join(line.split()) for line in cures_of(config, options, stage, room)[1:])
    return [line for line in found if not line.startswith("devices=")]


def _options(device_type: str) -> PlanConfig:
    """Of a plan for this process's share; of its hardware only whether it is a GPU is used."""
    hardware = "cpu" if device_type == "cpu" else "h100"
    return PlanConfig(hardware=hardware, devices=rank_and_world()[1])


def _launcher_shards() -> bool:
    """Whether `accelerate launch` has been told to use FSDP or DeepSpeed."""
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() == "true" for name in names)


def _size(size: float) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB / 10 else f"{size / _MIB:.1f} MiB"
