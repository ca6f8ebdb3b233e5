"""Memory warnings before a stage, and advice after out-of-memory errors."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from weft_rl.config.schema import RunConfig
from weft_rl.distributed import find_device, rank_and_world
from weft_rl.errors import OutOfMemory, UserError
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plans
from weft_rl.plan.suggestions import suggest

_SHARDING_LAUNCHERS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


def memory_warnings(config: RunConfig, stages: Sequence[str]) -> list[str]:
    """Return warnings of stages that exceed free memory; none for Hub models and sharding."""
    from weft_rl.models.memory import free_memory  # --help must not import torch

    device = find_device(config.device)
    free = free_memory(device)
    shards = any(os.environ.get(name, "").lower() == "true" for name in _SHARDING_LAUNCHERS)
    if free is None or shards:
        return []
    try:
        plans = make_plans(config, _options(device.type))
    except UserError:
        return []
    return [
        f"stage {plan.stage} may run out of memory: it needs {plan.total_memory / 2**30:.2f} GiB "
        f"and {device} has {free / 2**30:.2f} GiB free; "
        f"{_advice(config, plan.stage, device.type, free)}"
        for plan in plans
        if plan.stage in stages and plan.total_memory > free
    ]


@contextmanager
def advise_on_out_of_memory(config: RunConfig, stage: str, resume: str) -> Generator[None]:
    """Raise OutOfMemory, with advice and the arguments `resume`, if an allocation fails."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        from weft_rl.models.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        device = find_device(config.device)
        # the first line of an allocator's error has the requested size
        cause = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise OutOfMemory(
            f"stage {stage}: {device} ran out of memory ({cause}); with more memory resume with: "
            f"python -m weft_rl.pipeline {resume}; otherwise, in a new run "
            f"{_advice(config, stage, device.type)}"
        ) from error


def _advice(config: RunConfig, stage: str, device_type: str, room: float = 0) -> str:
    """Return run options that reduce a stage's memory, until it fits `room` bytes."""
    if stage == "eval":
        return f"lower eval.batch_size={config.eval.batch_size}"
    try:
        suggestions = suggest(config, _options(device_type), stage, room)
    except UserError:  # a model on the Hub
        return "see weft-rl plan for a model of this size"
    texts = [each.text for each in suggestions if each.of_run]
    return f"set, in this order: {', '.join(texts)}" if texts else "use a larger device"


def _options(device_type: str) -> PlanConfig:
    """Return plan options for this process; only CPU or GPU matters for memory."""
    hardware = "cpu" if device_type == "cpu" else "h100"
    return PlanConfig(hardware=hardware, devices=rank_and_world()[1])
