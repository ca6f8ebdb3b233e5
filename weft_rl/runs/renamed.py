"""Renamed option keys of earlier run directories."""

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "cold_start.estimate.dropout": "cold_start.entropy_pass.dropout",
    "cold_start.estimate.precision": "cold_start.entropy_pass.precision",
    "cold_start.estimate.rates": "cold_start.entropy_pass.rates",
    "cold_start.estimate.reference": "cold_start.ref_model",
    "cold_start.estimate.refresh_every": "cold_start.entropy_pass.refresh_every",
    "cold_start.normalizer": "cold_start.loss_norm",
    "cold_start.slope": "cold_start.exact_elbo",
    "cold_start.times": "cold_start.t_sampling",
    "memory.weights": "memory.dtype",
    "rl.loss.kl": "rl.loss.kl_estimator",
    "rl.masks.by_block": "rl.masks.blockwise",
    "rl.masks.draws": "rl.masks.num_mc_samples",
    "rl.masks.per": "rl.masks.share_group_masks",
    "rl.masks.times": "rl.masks.t_sampling",
    "rl.objective": "rl.loss_type",
    "utilisation": "utilization",
}
# Old key -> old value -> new value; other values are unchanged.
_VALUES: dict[str, dict[Any, Any]] = {
    "rl.loss.kl": {"tokens": "k3", "sequence": "k2_sequence"},
    "rl.masks.per": {"group": True, "row": False},
}


def renamed(key: str, value: Any) -> dict[str, Any]:
    """Return the new keys and values of an old key; empty if the key is not an old one."""
    if key not in RENAMED:
        return {}
    if key == "memory.weights" and value == "nf4":
        return {"memory.quantization": "nf4"}
    known = _VALUES.get(key, {})
    return {RENAMED[key]: known.get(value, value) if isinstance(value, str) else value}


def with_new_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested options with old keys renamed."""
    copy = _copied(settings)
    for old in RENAMED:
        *path, last = old.split(".")
        node: Any = copy
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            continue
        for key, value in renamed(old, node.pop(last)).items():
            *place, name = key.split(".")
            target = copy
            for part in place:
                target = target.setdefault(part, {})
            target.setdefault(name, value)
    if "weights" in (settings.get("memory") or {}):  # memory.weights was split into two options
        copy["memory"] = {"dtype": "float32", "quantization": "none"} | copy["memory"]
    if isinstance(copy.get("cold_start"), dict) and copy["cold_start"].get("estimate") == {}:
        del copy["cold_start"]["estimate"]
    return copy


def _copied(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    return tree
