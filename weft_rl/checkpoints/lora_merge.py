"""LoRA adapters, merged one tensor at a time: PEFT's merge_and_unload needs the full model."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.checkpoints.safetensors_index import Stored, read_header
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, read_json

if TYPE_CHECKING:
    import torch

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_PREFIX = "base_model.model."
# PEFT options that keep base + scale * B A, and those read here; any other is unsupported.
_SAME_SUM = (
    *("auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying"),
    *("eva_config", "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform"),
    *("loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core"),
    *("peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config"),
    *("target_modules", "task_type", "use_rslora"),
)
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    # inits that keep the base unchanged; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change it
    "init_lora_weights": (None, True, False, "eva", "gaussian", "orthogonal"),
    "peft_type": ("LORA",),
}
_FIX, _COPY = "merge it with PEFT (merge_and_unload) and use the saved model", "copy it again"


@dataclass(frozen=True)
class Update:
    """A low-rank update of a matrix: scale * B A."""

    a: Stored  # (r, in)
    b: Stored  # (out, r)
    scale: float


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / ADAPTER)
    if not isinstance(config, dict):
        raise UserError(f"{folder / ADAPTER}: must be a JSON object; {_COPY}")
    return config


def adapter_base(folder: Path) -> str:
    """Return an adapter's base, a folder or Hub id. Raises UserError if it is unreadable."""
    base = _read_config(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"{folder / ADAPTER}: base_model_name_or_path is missing; {_COPY}")
    relative = folder / base
    return str(relative.resolve()) if relative.is_dir() else base


def require_hub_base(base: str, asked: str, fix: str) -> None:
    """Raise UserError if an adapter's base is a local folder, which others cannot load.

    asked: key=value or call that failed, in the message."""
    if not base or Path(base).is_dir():
        raise UserError(
            f"{asked}: the adapter's base is {base or 'unnamed'}, not on the Hub; {fix}"
        )


def base_of(place: str) -> str:
    """Return the base below the adapters of `place`, without a download. Raises UserError."""
    return _descend(place, str)[0]


def chain(folder: Path) -> tuple[Path, list[Path]]:
    """Return the base model, downloaded if necessary, and the adapters in order, or raise
    UserError."""
    base, adapters = _descend(str(folder), lambda place: str(resolve_checkpoint(place)))
    return Path(base), [Path(adapter) for adapter in reversed(adapters)]


def _descend(place: str, resolve: Callable[[str], str]) -> tuple[str, list[str]]:
    """Follow the bases of adapters: the model, and the adapters from the last."""
    adapters: list[str] = []
    while (Path(place) / ADAPTER).exists():
        if place in adapters:
            raise UserError(f"{place}: the adapter is its own base; name its base in {ADAPTER}")
        adapters.append(place)
        base = adapter_base(Path(place))
        try:
            place = resolve(base)
        except UserError as error:
            raise UserError(f"{place}: base model not available: {error}") from error
    return place, adapters


def read_updates(
    adapters: Sequence[Path], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[Update]]:
    """Return the updates of stacked adapters in order, by tensor name.

    shapes: of the model's tensors. Raises UserError for unsupported or damaged adapters."""
    updates: dict[str, list[Update]] = {}
    for folder in adapters:
        for name, update in _updates(folder).items():
            shape = (update.b.shape[0], update.a.shape[1])
            if shapes.get(name) != shape:
                raise UserError(
                    f"{folder}: updates {name} of shape {shape}, the model has "
                    f"{shapes.get(name)}; use the adapter's own base"
                )
            updates.setdefault(name, []).append(update)
    return updates


def _updates(folder: Path) -> dict[str, Update]:
    config, path = _read_config(folder), folder / ADAPTER_WEIGHTS
    _require_plain_lora(folder, config)
    alpha = _positive(folder, config, "lora_alpha")
    if not path.exists() and (folder / _PICKLE).exists():
        raise UserError(f"{folder / _PICKLE}: pickles are not read; save it as {ADAPTER_WEIGHTS}")
    stored = read_header(path)
    updates: dict[str, Update] = {}
    for name, a in stored.items():
        module, part, _ = name.removeprefix(_PREFIX).rpartition(".lora_A.")
        if not part:
            continue
        b = stored.get(name.replace(".lora_A.", ".lora_B."))
        if b is None:
            raise UserError(f"{path}: {name} has no lora_B; {_COPY}")
        rank = _rank(folder, config, module)
        if len(a.shape) != 2 or len(b.shape) != 2 or not a.shape[0] == b.shape[1] == rank:
            raise UserError(
                f"{path}: {name} has shapes {a.shape} and {b.shape}, not rank {rank}; {_COPY}"
            )
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        updates[f"{module}.weight"] = Update(a, b, scale)
    if 2 * len(updates) != len(stored):
        raise UserError(f"{path}: contains tensors other than pairs of lora_A and lora_B; {_FIX}")
    return updates


def _require_plain_lora(folder: Path, config: Mapping[str, Any]) -> None:
    unsupported = {
        name: value
        for name, value in (dict.fromkeys(_SUPPORTED) | dict(config)).items()
        if (value not in _SUPPORTED[name] if name in _SUPPORTED else value)
        and name not in _SAME_SUM
    }
    if unsupported:
        options = ", ".join(f"{name}={value!r}" for name, value in sorted(unsupported.items()))
        raise UserError(f"{folder}: {options}: only plain LoRA can be merged; {_FIX}")


def _positive(folder: Path, config: Mapping[str, Any], name: str) -> float:
    value = config.get(name)
    if not is_number(value) or value <= 0:
        raise UserError(f"{folder / ADAPTER}: {name}={value!r}: must be a positive number; {_COPY}")
    return value


def _rank(folder: Path, config: Mapping[str, Any], module: str) -> float:
    """Rank of a module by PEFT's rule: the first pattern that matches its name."""
    pattern = config.get("rank_pattern") or {}
    try:
        for key in pattern:
            if re.match(rf"(.*\.)?({key})$", module):
                return _positive(folder, pattern, key)
    except (re.error, TypeError) as error:
        raise UserError(
            f"{folder / ADAPTER}: rank_pattern={pattern!r}: damaged ({error}); {_COPY}"
        ) from error
    return _positive(folder, config, "r")


def merge(tensor: "torch.Tensor", updates: Sequence[Update]) -> "torch.Tensor":
    """Return the float32 sum of a matrix and its updates, on the matrix's device."""
    total = tensor.float().clone()
    for update in updates:
        a, b = (read_tensor(part).to(total) for part in (update.a, update.b))
        total.addmm_(b, a, alpha=update.scale)
    return total


def read_tensor(item: Stored) -> "torch.Tensor":
    """Load one tensor of a file on the CPU."""
    with safe_open(item.file, "pt") as file:
        return file.get_tensor(item.name)
