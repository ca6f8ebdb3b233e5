"""Whether a run can be resumed from a checkpoint: its content, beyond its checksums.

Files are read as resuming reads them, never as pickles, and compared with the trainer's model and
options. The trainer does not change, so that an older checkpoint can be tried next."""

import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from weft_rl.checkpoints.safetensors_index import read_folder, read_header
from weft_rl.io import safe_files
from weft_rl.models.loading import load_tokenizer
from weft_rl.models.memory import is_out_of_memory
from weft_rl.trainers.entropy_pass import EntropyCache
from weft_rl.trainers.infra.atomic_checkpoints import METRIC_LINE, ResumableTrainer
from weft_rl.trainers.infra.resumable_rollouts import ResumableRL
from weft_rl.trainers.infra.token_entropy_log import TokenTable

# State files that libraries would load, and those of them that a run writes.
_STATES = re.compile(r".*\.(bin|pt|pth|pkl|ckpt|distcp)")
_WRITTEN = re.compile(
    r"training_args\.bin|(optimizer|scheduler)\.pt|rng_state(_\d+)?\.pth|rollout_\d+\.pt"
)
# Of transformers' state of a step: what the run's options say instead.
_OPTIONS = ("logging_steps", "save_steps")


def find_unrestorable(trainer: ResumableTrainer, checkpoint: Path) -> str | None:
    """Which file of a checkpoint cannot be restored and why; None if all can.

    The first process reads the files of all. Weights and optimizer that a launcher shards are left
    to its own reader, and a checkpoint of another number of processes to the caller."""
    ranks = trainer.accelerator.num_processes
    if len([*checkpoint.glob("rng_state*.pth")]) not in (0, ranks):
        return None
    for name, check in _checks(trainer, checkpoint, ranks):
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
    trainer: ResumableTrainer, folder: Path, ranks: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    step = int(folder.name.removeprefix("step-"))
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if not sharded:
        yield "the list of files", lambda: _check_names(trainer, folder)
    yield "trainer_state.json", lambda: _check_state(trainer, folder, step)
    for rank in range(ranks):
        name = METRIC_LINE.format(rank=rank)
        yield name, lambda name=name: _metric_line(folder / name, step)
        name = "rng_state.pth" if ranks == 1 else f"rng_state_{rank}.pth"
        yield name, lambda name=name: _check_random_states(read_state(folder / name))
        if isinstance(trainer, ResumableRL):
            name = f"rollout_{rank}.pt"
            yield name, lambda name=name: _check_rollout(trainer, folder / name, step)
        else:
            yield "the token entropies", lambda rank=rank: _check_entropies(trainer, folder, rank)
    if not sharded:
        yield "the weights", lambda: _check_weights(trainer, folder)
        yield "optimizer.pt", lambda: _check_optimizer(trainer, folder, step)
        yield "scheduler.pt", lambda: _check_scheduler(trainer, folder, step)
    yield "the model's configuration", lambda: safe_files.check_model_folder(folder)
    yield "the tokenizer", lambda: load_tokenizer(str(folder))


def read_state(path: Path) -> Any:
    """The content of a file of torch.save on the CPU, its tensors mapped; never as a pickle."""
    safe_files.regular_size(path)
    with safe_globals():  # arrays of NumPy, which random states hold
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def require_like(name: str, value: Any, like: Any) -> None:
    """Raise ValueError unless a value has the form of `like`.

    A torch.Size: a tensor of that shape; a dict: at least its keys, each in its form; a list of one
    form: any number of items in it; float: any finite number; another type: exactly it; else: an
    equal value of the same type."""
    if isinstance(like, torch.Size):
        fits = isinstance(value, torch.Tensor) and value.shape == like
    elif isinstance(like, dict):
        fits = isinstance(value, dict) and like.keys() <= value.keys()
    elif isinstance(like, list):
        fits = isinstance(value, list)
    elif like is float:
        fits = type(value) in (int, float) and math.isfinite(value)
    else:
        fits = type(value) is like or (type(value) is type(like) and value == like)
    if not fits:
        raise ValueError(f"{name}={value!r}"[:100])
    if isinstance(like, dict):
        for key in like:
            require_like(f"{name}.{key}", value[key], like[key])
    elif isinstance(like, list):
        for item in value:
            require_like(name, item, like[0])


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _check_names(trainer: ResumableTrainer, folder: Path) -> None:
    other = "model" if isinstance(trainer.model, PeftModel) else "adapter_model"
    suffixes = (".safetensors", ".safetensors.index.json")
    for name in sorted(path.name for path in folder.iterdir()):
        foreign = name.startswith(other) and name.endswith(suffixes)
        foreign |= bool(_STATES.fullmatch(name) and not _WRITTEN.fullmatch(name))
        foreign |= (folder / name).is_dir() and any((folder / name).glob("*model*"))
        _require(not foreign, f"{name} is not of this run")


def _check_state(trainer: ResumableTrainer, folder: Path, step: int) -> None:
    path = folder / "trainer_state.json"
    safe_files.read_json(path)
    state = vars(TrainerState.load_from_json(str(path)))
    for name, default in vars(TrainerState()).items():
        if default is not None or state[name] is not None:
            is_number = default is None or (type(default) in (int, float))
            require_like(name, state[name], float if is_number else type(default))
    options = {name: getattr(trainer.args, name) for name in _OPTIONS}
    whole = {name: int(value) for name, value in options.items() if value >= 1}
    require_like("state", state, {"global_step": step, "log_history": [dict], **whole})


def _metric_line(path: Path, step: int) -> dict[str, Any]:
    line = safe_files.read_json(path)
    metrics = {"skipped_steps": [int]}
    require_like("line", line, {"loss": float, "since": int, "metrics": metrics})
    for name, values in line["metrics"].items():
        require_like(name, values, [float])
    (skipped,) = line["metrics"]["skipped_steps"]
    _require(0 <= line["since"] <= step and 0 <= skipped <= step, "a step after the checkpoint's")
    return line


def _check_rollout(trainer: ResumableRL, path: Path, step: int) -> None:
    kept, args = read_state(path), trainer.args
    batches, rows = step * args.gradient_accumulation_steps, args.per_device_train_batch_size
    require_like("rollout", kept, {"step": batches, "ids": [str], "buffer": [dict]})
    _require(len(kept["buffer"]) == trainer.slices, "another number of slices")
    _require(len(kept["ids"]) == rows * trainer.slices, "another number of ids")
    for batch in kept["buffer"]:
        completions = batch["completion_ids"].shape
        shapes = {"prompt_mask": batch["prompt_ids"].shape, "completion_mask": completions}
        require_like("batch", batch, shapes)
        for name, value in batch.items():
            _require(isinstance(value, torch.Tensor), f"{name} is not a tensor")
            fits = value.dim() == 0 or len(value) == rows or name == "loss_tokens"
            fits &= not name.endswith("log_probs") or value.shape[::2] == completions
            _require(fits, f"{name} has shape {tuple(value.shape)} for {rows} rows")
            _require(bool(value.isfinite().all()), f"{name} is not finite")
            if name in ("prompt_ids", "completion_ids"):
                inside = int(value.min()) >= 0 and int(value.max()) < _vocab_size(trainer)
                _require(inside, f"{name} are outside of the vocabulary")


def _vocab_size(trainer: ResumableTrainer) -> int:
    return int(trainer.accelerator.unwrap_model(trainer.model).config.vocab_size)


def _check_entropies(trainer: ResumableTrainer, folder: Path, rank: int) -> None:
    cache, table = EntropyCache(1), TokenTable(_vocab_size(trainer))
    shape = table.count.shape
    cache.load(folder)
    table.load(folder, rank)
    _require(all(bool(value.isfinite().all()) for value in cache.values.values()), "not finite")
    require_like("table", vars(table), {"count": shape, "total": shape})


def _check_random_states(states: Any) -> None:
    random.Random().setstate(states["python"])
    np.random.RandomState().set_state(states["numpy"])
    torch.Generator().set_state(states["cpu"])


def _check_weights(trainer: ResumableTrainer, folder: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        wanted = get_peft_model_state_dict(model)
        stored = read_header(folder / "adapter_model.safetensors")
    else:
        wanted, stored = model.state_dict(), read_folder(folder)
    # of tensors that share their memory one is saved
    saved = {wanted[name].data_ptr() for name in stored if name in wanted}
    missing = {name for name, value in wanted.items() if value.data_ptr() not in saved}
    _require(not missing, f"{sorted(missing)[:1]} is missing")
    unknown = sorted(stored.keys() - wanted.keys())
    _require(not unknown, f"{unknown[:1]} is unknown")
    for name, item in stored.items():
        _require(item.shape == tuple(wanted[name].shape), f"{name} has shape {item.shape}")


def _check_optimizer(trainer: ResumableTrainer, folder: Path, step: int) -> None:
    saved = read_state(folder / "optimizer.pt")
    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = {*trainer.get_decay_parameter_names(model)}
    # two groups, as transformers makes them
    shapes = [p.shape for name, p in trained if name in decayed]
    shapes += [p.shape for name, p in trained if name not in decayed]
    group = {"lr": float, "eps": float, "weight_decay": float, "params": [int]}
    require_like("optimizer", saved, {"state": {}, "param_groups": [group]})
    numbers = [number for each in saved["param_groups"] for number in each["params"]]
    _require(numbers == [*range(len(shapes))], f"is of {len(numbers)} parameters")
    _require({*saved["state"]} <= {*numbers}, "has states of other parameters")
    for number, state in saved["state"].items():
        like = {"exp_avg": shapes[number], "exp_avg_sq": shapes[number]}
        require_like(f"state of parameter {number}", state, like)
    steps = max((float(state["step"]) for state in saved["state"].values()), default=0)
    line = _metric_line(folder / METRIC_LINE.format(rank=0), step)
    done = step - line["metrics"]["skipped_steps"][0]  # of the optimizer
    _require(steps == done, f"has taken {steps} steps, not {done}")


def _check_scheduler(trainer: ResumableTrainer, folder: Path, step: int) -> None:
    saved = read_state(folder / "scheduler.pt")
    like = {"base_lrs": [float], "_last_lr": [float], "lr_lambdas": list}
    require_like("scheduler", saved, like | {"last_epoch": step, "_step_count": step + 1})
    groups = len(read_state(folder / "optimizer.pt")["param_groups"])
    _require(all(len(saved[name]) == groups for name in like), f"is not of {groups} groups")
