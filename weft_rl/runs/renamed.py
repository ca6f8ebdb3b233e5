"""Options of saved runs by full key, and renamed keys of earlier run directories."""

from collections.abc import Iterator, Mapping
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
    """Return the new keys and values of an old key; memory.weights was split into two options."""
    if key == "memory.weights":
        is_nf4 = value == "nf4"
        quantization = {"memory.quantization": "nf4" if is_nf4 else "none"}
        return {"memory.dtype": "float32" if is_nf4 else value} | quantization
    values = _VALUES.get(key, {})
    return {RENAMED[key]: values.get(value, value) if isinstance(value, str) else value}


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full key and value of each nested option."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def with_new_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested options with old keys renamed, without empty blocks."""
    old = dict(flattened(settings))
    options = {key: value for key, value in old.items() if key not in RENAMED}
    for key in filter(old.__contains__, RENAMED):
        new = renamed(key, old[key])
        options |= {name: new[name] for name in new if name not in options}
    tree: dict[str, Any] = {}
    for key, value in options.items():
        *path, name = key.split(".")
        node = tree
        for part in path:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[name] = value
    return tree
