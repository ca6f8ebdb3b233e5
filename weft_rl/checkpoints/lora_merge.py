"""A low-rank adapter's folder: what it was trained on, and its sum with one tensor at a time."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weft_rl.checkpoints.hub import local_folder
from weft_rl.checkpoints.safetensors_index import Stored, read_header
from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_json

ADAPTER, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_ON_ITSELF = f"{{}}: is an adapter on itself; name its base in {ADAPTER}"
_PREFIX = "base_model.model."
# Initial matrices that leave the base as it is. Others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take
# something out of it first, and are sums with what is left.
_PLAIN_STARTS = (None, True, False, "eva", "gaussian", "orthogonal")
# PEFT's options that change nothing in the sum of a base and B A, beside the ones read here. Any
# other one that is set makes an adapter of another form.
_SAME_SUM = (
    *("auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying"),
    *("eva_config", "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform"),
    *("loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core", "peft_type"),
    *("peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config"),
    *("target_modules", "task_type", "use_rslora"),
)
_CURE = "merge it with PEFT (merge_and_unload), save that, and name its folder"
_NUMPY = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


@dataclass(frozen=True)
class Update:
    """A matrix's low-rank update: scale * B A."""

    a: Stored  # (r, in)
    b: Stored  # (out, r)
    scale: float


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """An adapter's adapter_config.json. Raises UserError when it cannot be read."""
    config = read_json(folder / ADAPTER)
    if not isinstance(config, dict):
        raise UserError(f"{folder / ADAPTER}: must be a JSON object; copy it again")
    return config


def adapter_base(folder: Path) -> str:
    """What an adapter was trained on; a path is relative to the adapter's folder.

    Raises UserError when its configuration cannot be read or names nothing."""
    base = read_adapter_config(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"{folder / ADAPTER}: names no base_model_name_or_path; copy it again")
    beside = folder / base
    return str(beside.resolve()) if beside.is_dir() else base


def base_of(place: str) -> str:
    """The folder or hub id under a place's adapters, nothing fetched; without any, the place.

    Raises UserError for an adapter on itself, and as adapter_base does."""
    adapters: list[str] = []
    while (Path(place) / ADAPTER).exists():
        if place in adapters:
            raise UserError(_ON_ITSELF.format(place))
        adapters.append(place)
        place = adapter_base(Path(place))
    return place


def chain(folder: Path) -> tuple[Path, list[Path]]:
    """The model under an adapter, and the adapters on it from the first to this one.

    A base on the hub is fetched first. Raises UserError when it cannot be had."""
    adapters = []
    while (folder / ADAPTER).exists():
        if folder in adapters:
            raise UserError(_ON_ITSELF.format(folder))
        adapters.insert(0, folder)
        try:
            folder = local_folder(adapter_base(folder))
        except UserError as error:
            raise UserError(f"{folder}: its base is not here: {error}") from error
    return folder, adapters


def updates(folder: Path) -> dict[str, Update]:
    """The updates of an adapter by the name of the tensor that each is added to.

    Raises UserError for a form of adapter that is more than such sums."""
    config = read_adapter_config(folder)
    other = [
        f"{name}={value!r}"
        for name, value in sorted(config.items())
        if value and name not in (*_SAME_SUM, "bias", "init_lora_weights")
    ]
    for name, plain in (("bias", ("none", None)), ("init_lora_weights", _PLAIN_STARTS)):
        if config.get(name) not in plain:
            other.append(f"{name}={config[name]!r}")
    if config.get("peft_type") != "LORA":
        other = [f"peft_type={config.get('peft_type')!r}"]
    if other:
        what = ", ".join(other)
        raise UserError(f"{folder}: {what}: cannot be merged, only plain LoRA can; {_CURE}")
    alpha = _positive(folder, config, "lora_alpha")
    path = folder / _WEIGHTS
    if not path.exists() and (folder / _PICKLED).exists():
        raise UserError(
            f"{folder}: holds {_PICKLED}, a pickle, which is not read; save it as {_WEIGHTS}"
        )
    stored = read_header(path)
    found: dict[str, Update] = {}
    for name, a in stored.items():
        module, part, _ = name.removeprefix(_PREFIX).rpartition(".lora_A.")
        if part:
            b = stored.get(name.replace(".lora_A.", ".lora_B."))
            if b is None:
                raise UserError(f"{path}: {name} has no lora_B; copy it again")
            rank = _rank(folder, config, module)
            if len(a.shape) != 2 or len(b.shape) != 2 or not a.shape[0] == b.shape[1] == rank:
                shapes = f"{a.shape} and {b.shape}"
                raise UserError(f"{path}: {name} and its lora_B have shapes {shapes}, rank {rank}")
            scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
            found[f"{module}.weight"] = Update(a, b, scale)
    if 2 * len(found) != len(stored):
        raise UserError(f"{path}: holds more than pairs of lora_A and lora_B; {_CURE}")
    return found


def _positive(folder: Path, config: Mapping[str, Any], name: str) -> float:
    """A field that must be a positive number."""
    if name not in config:
        raise UserError(f"{folder / ADAPTER}: {name} is missing; copy it again")
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"{folder / ADAPTER}: {name}={value!r}: must be a positive number")
    return value


def _rank(folder: Path, config: Mapping[str, Any], module: str) -> float:
    """The rank of a module's matrices, by PEFT's rule for patterns: the first that matches it."""
    pattern = config.get("rank_pattern") or {}
    try:
        for key in pattern:
            if re.match(rf"(.*\.)?({key})$", module):
                return _positive(folder, pattern, key)
    except (re.error, TypeError) as error:
        raise UserError(
            f"{folder / ADAPTER}: rank_pattern={pattern!r}: cannot be read ({error}); copy it again"
        ) from error
    return _positive(folder, config, "r")


def updates_of_all(
    adapters: Sequence[Path], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[Update]]:
    """The updates of adapters on each other, in order, by the name of the tensor.

    shapes: the model's tensors. Raises UserError as `updates` does, and for an update of a tensor
    that the model does not have in that shape."""
    added: dict[str, list[Update]] = {}
    for folder in adapters:
        for name, update in updates(folder).items():
            shape = (update.b.shape[0], update.a.shape[1])
            if shapes.get(name) != shape:
                raise UserError(
                    f"{folder}: updates {name} {shape}, which the model has as "
                    f"{shapes.get(name)}; is it of another model?"
                )
            added.setdefault(name, []).append(update)
    return added


def merged_bytes(base: Stored, added: list[Update]) -> bytes:
    """A tensor's bytes with updates added one after the other in float32, in its own dtype."""
    total = as_float32(base)
    for update in added:
        total = total + np.float32(update.scale) * (as_float32(update.b) @ as_float32(update.a))
    if base.dtype == "BF16":
        bits = total.view(np.uint32)
        # half a step up, or a hair less where the last bit kept is even: to nearest, ties to even
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> 16
        return np.where(np.isnan(total), bits >> 16 | 1, rounded).astype(np.uint16).tobytes()
    return total.astype(_NUMPY[base.dtype]).tobytes()


def as_float32(item: Stored) -> np.ndarray:
    """A stored tensor as float32. NumPy has no bfloat16: it is a float32's upper half."""
    with item.file.open("rb") as file:
        file.seek(item.start)
        content = file.read(item.length)
    if item.dtype == "BF16":
        bits = np.frombuffer(content, dtype=np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(item.shape)
    if item.dtype not in _NUMPY:
        raise UserError(f"{item.file}: {item.dtype}: cannot be merged; only float weights can")
    return np.frombuffer(content, dtype=_NUMPY[item.dtype]).astype(np.float32).reshape(item.shape)
