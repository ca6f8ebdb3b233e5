"""Whether a run can be resumed from a checkpoint: its content, beyond its checksums.

Files are read as resuming reads them, never as pickles, and compared with the trainer's own model
and options. Nothing of the trainer changes, so that an older checkpoint can be tried next."""

import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import Trainer, TrainerState
from transformers.trainer_pt_utils import safe_globals

from weft_rl.checkpoints.safetensors_index import read_folder, read_header
from weft_rl.io import safe_files
from weft_rl.models.loading import load_tokenizer
from weft_rl.models.memory import is_out_of_memory
from weft_rl.trainers.entropy_pass import EntropyCache
from weft_rl.trainers.infra.atomic_checkpoints import LINE, AtomicCheckpoints
from weft_rl.trainers.infra.resumable_rollouts import ResumableRollouts
from weft_rl.trainers.infra.token_entropy_log import TokenTable

# State files that no trainer here writes, and that libraries would load if they were there.
_STATES = re.compile(r".*\.(bin|pt|pth|pkl|ckpt|distcp)")
_OURS = re.compile(
    r"training_args\.bin|(optimizer|scheduler)\.pt|rng_state(_\d+)?\.pth|rollout_\d+\.pt"
)
# What transformers keeps of a step in its state, and what the run's options say instead.
_OPTIONS = ("logging_steps", "save_steps")


def unusable(trainer: AtomicCheckpoints, checkpoint: Path) -> str | None:
    """Which file of a checkpoint cannot be restored and why; None when all can.

    Files of every process are read, as the first process decides for all. Weights and optimizer
    that a launcher shards are left to its own reader, and a checkpoint of another number of
    processes to the caller."""
    written = len([*checkpoint.glob("rng_state*.pth")])
    if written not in (0, trainer.accelerator.num_processes):
        return None
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    for name, check in _checks(trainer, checkpoint, sharded=sharded):
        try:
            check()
        # whatever a damaged file makes a library raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return f"{name} cannot be restored ({reason[:200]})"
    return None


def _checks(
    trainer: AtomicCheckpoints, checkpoint: Path, *, sharded: bool
) -> Iterator[tuple[str, Callable[[], Any]]]:
    ranks = trainer.accelerator.num_processes
    yield "the list of files", lambda: _check_names(trainer, checkpoint, sharded=sharded)
    yield "trainer_state.json", lambda: _check_state(trainer, checkpoint)
    for rank in range(ranks):
        yield LINE.format(rank=rank), lambda rank=rank: _check_line(trainer, checkpoint, rank)
        name = "rng_state.pth" if ranks == 1 else f"rng_state_{rank}.pth"
        yield name, lambda name=name: _check_random_states(read_state(checkpoint / name))
        if isinstance(trainer, ResumableRollouts):
            yield f"rollout_{rank}.pt", lambda rank=rank: _check_rollout(trainer, checkpoint, rank)
        else:
            yield "token entropies", lambda rank=rank: _check_entropies(trainer, checkpoint, rank)
    if not sharded:
        yield "the weights", lambda: _check_weights(trainer, checkpoint)
        yield "optimizer.pt", lambda: _check_optimizer(trainer, checkpoint)
        yield "scheduler.pt", lambda: _check_scheduler(trainer, checkpoint)
    yield "the model's settings", lambda: safe_files.check_model_folder(checkpoint)
    yield "the tokenizer", lambda: load_tokenizer(str(checkpoint))


def read_state(path: Path) -> Any:
    """The content of a file of torch.save on the CPU, its tensors mapped; never as a pickle."""
    safe_files.regular_size(path)
    with safe_globals():  # arrays of NumPy, which random states hold
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def require(condition: bool, problem: str) -> None:
    """Raise ValueError with the problem unless the condition holds."""
    if not condition:
        raise ValueError(problem)


def is_finite(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_names(trainer: AtomicCheckpoints, checkpoint: Path, *, sharded: bool) -> None:
    if sharded:
        return
    names = {path.name for path in checkpoint.iterdir()}
    own = "model" if isinstance(trainer.model, PeftModel) else "adapter_model"
    for name in sorted(names):
        foreign = name.startswith(own) and name.endswith(
            (".safetensors", ".safetensors.index.json")
        )
        state = _STATES.fullmatch(name) and not _OURS.fullmatch(name)
        inside = (checkpoint / name).is_dir() and any((checkpoint / name).glob("*model*"))
        require(not (foreign or state or inside), f"{name} is not of this run")


def _check_state(trainer: AtomicCheckpoints, checkpoint: Path) -> None:
    path = checkpoint / "trainer_state.json"
    safe_files.read_json(path)
    state = TrainerState.load_from_json(str(path))
    step = int(checkpoint.name.removeprefix("step-"))
    require(type(state.global_step) is int, "global_step is no whole number")
    require(state.global_step == step, f"global_step={state.global_step}, not {step}")
    for name, default in vars(TrainerState()).items():
        value = getattr(state, name)
        if name == "epoch":
            fits = is_finite(value)
        elif default is None:
            fits = value is None or is_finite(value)
        elif isinstance(default, bool | list | dict):
            fits = isinstance(value, type(default))
        else:
            fits = is_finite(value)
        require(fits, f"{name}={value!r}"[:100])
    require(all(isinstance(row, dict) for row in state.log_history), "log_history")
    for name in _OPTIONS:
        asked = getattr(trainer.args, name)
        own = getattr(state, name)
        require(asked < 1 or own == asked, f"{name}={own}, not {asked}")


def _check_line(trainer: AtomicCheckpoints, checkpoint: Path, rank: int) -> None:
    kept = safe_files.read_json(checkpoint / LINE.format(rank=rank))
    require({"loss", "since", "skipped", "metrics"} <= kept.keys(), "a value is missing")
    step = int(checkpoint.name.removeprefix("step-"))
    require(isinstance(kept["loss"], float), f"loss={kept['loss']!r}"[:100])
    for name in ("since", "skipped"):
        fits = type(kept[name]) is int and 0 <= kept[name] <= step
        require(fits, f"{name}={kept[name]!r}"[:100])
    metrics = [kept["metrics"]] if isinstance(trainer, ResumableRollouts) else kept["metrics"]
    lists = [*metrics[0].values(), *metrics[1:]]
    require(all(is_finite(value) for values in lists for value in values), "metrics")
    require(len(metrics) == (1 if isinstance(trainer, ResumableRollouts) else 2), "metrics")


def _check_rollout(trainer: ResumableRollouts, checkpoint: Path, rank: int) -> None:
    kept, args = read_state(checkpoint / f"rollout_{rank}.pt"), trainer.args
    step = int(checkpoint.name.removeprefix("step-")) * args.gradient_accumulation_steps
    require(type(kept["step"]) is int and kept["step"] == step, f"step={kept['step']!r}"[:100])
    rows, slices = args.per_device_train_batch_size, trainer.slices
    require(len(kept["buffer"]) == slices, f"has {len(kept['buffer'])} slices, not {slices}")
    ids = kept["ids"]
    require(isinstance(ids, list) and len(ids) == rows * slices, "ids are not of its rows")
    require(all(isinstance(name, str) for name in ids), "ids are no names")
    for batch in kept["buffer"]:
        completions = batch["completion_ids"].shape
        require(batch["prompt_mask"].shape == batch["prompt_ids"].shape, "prompts")
        require(batch["completion_mask"].shape == completions, "completions")
        for name, value in batch.items():
            require(isinstance(value, torch.Tensor), f"{name} is no tensor")
            fits = value.dim() == 0 or len(value) == rows or name == "scored_tokens"
            require(fits, f"{name} has shape {tuple(value.shape)} for {rows} rows")
            require(bool(value.isfinite().all()), f"{name} is not finite")
            if name.endswith("log_probs"):
                require(value.shape[::2] == completions, f"{name} has another length")
            if name in ("prompt_ids", "completion_ids"):
                inside = int(value.min()) >= 0 and int(value.max()) < _vocabulary(trainer)
                require(inside, f"{name} are no tokens")


def _vocabulary(trainer: Trainer) -> int:
    return int(trainer.accelerator.unwrap_model(trainer.model).config.vocab_size)


def _check_entropies(trainer: AtomicCheckpoints, checkpoint: Path, rank: int) -> None:
    cache, table = EntropyCache(1), TokenTable(_vocabulary(trainer))
    size = table.count.shape
    cache.load(checkpoint)
    table.load(checkpoint, rank)
    require(all(bool(value.isfinite().all()) for value in cache.kept.values()), "not finite")
    require(table.count.shape == table.total.shape == size, f"has {len(table.count)} tokens")


def _check_random_states(states: Any) -> None:
    random.Random().setstate(states["python"])
    np.random.RandomState().set_state(states["numpy"])
    torch.Generator().set_state(states["cpu"])


def _check_weights(trainer: AtomicCheckpoints, checkpoint: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        wanted, found = (
            get_peft_model_state_dict(model),
            read_header(checkpoint / "adapter_model.safetensors"),
        )
    else:
        wanted, found = model.state_dict(), read_folder(checkpoint)
    # of tensors that share their memory one is saved
    saved = {wanted[name].data_ptr() for name in found if name in wanted}
    lacking = {name for name, item in wanted.items() if item.data_ptr() not in saved}
    require(not lacking - found.keys(), f"{sorted(lacking)[:1]} is missing")
    require(found.keys() <= wanted.keys(), f"{sorted(found.keys() - wanted.keys())[:1]} is unknown")
    for name, item in found.items():
        shape = tuple(wanted[name].shape)
        require(item.shape == shape, f"{name} has shape {item.shape}, not {shape}")


def _check_optimizer(trainer: AtomicCheckpoints, checkpoint: Path) -> None:
    saved = read_state(checkpoint / "optimizer.pt")
    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = {*trainer.get_decay_parameter_names(model)}
    # two groups, as transformers makes them
    shapes = [p.shape for name, p in trained if name in decayed]
    shapes += [p.shape for name, p in trained if name not in decayed]
    ids = [number for group in saved["param_groups"] for number in group["params"]]
    require(ids == [*range(len(shapes))], f"is of {len(ids)} parameters, not {len(shapes)}")
    for group in saved["param_groups"]:
        numbers = [group["lr"], group["eps"], group["weight_decay"], *group["betas"]]
        require(all(map(is_finite, numbers)), "an option is no number")
    require({*saved["state"]} <= {*ids}, "has states of other parameters")
    steps = max((float(state["step"]) for state in saved["state"].values()), default=0)
    for number, state in saved["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            found = state[name].shape
            require(found == shapes[number], f"{name} has shape {found}, not {shapes[number]}")
    done = _steps_done(checkpoint)
    require(steps == done, f"has taken {steps} steps, not {done}")


def _check_scheduler(trainer: AtomicCheckpoints, checkpoint: Path) -> None:
    saved = read_state(checkpoint / "scheduler.pt")
    groups = len(read_state(checkpoint / "optimizer.pt")["param_groups"])
    for name in ("base_lrs", "_last_lr"):
        fits = len(saved[name]) == groups and all(map(is_finite, saved[name]))
        require(fits, f"{name} is not of {groups} groups")
    require(len(saved["lr_lambdas"]) == groups, "lr_lambdas")
    step = int(checkpoint.name.removeprefix("step-"))
    for name, value in (("last_epoch", step), ("_step_count", step + 1)):
        require(type(saved[name]) is int and saved[name] == value, f"{name}={saved[name]!r}"[:100])


def _steps_done(checkpoint: Path) -> int:
    """Steps of the optimizer: all but those that were skipped."""
    kept = safe_files.read_json(checkpoint / LINE.format(rank=0))
    return int(checkpoint.name.removeprefix("step-")) - kept["skipped"]
