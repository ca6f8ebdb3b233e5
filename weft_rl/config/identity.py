"""The options that the weights of a run depend on: they must not change on resume."""

from collections.abc import Collection

from weft_rl.config.load import diff_configs
from weft_rl.config.schema import RunConfig

# Kind of stage -> options and blocks that its weights depend on.
_WEIGHT_OPTIONS = {
    "base": ("model", "base", "sampler.gen_length", "memory.mixed_precision"),
    "cold_start": ("model", "data", "prompt_style", "seed", "cold_start", "memory"),
    "rl": ("model", "task", "rewards", "prompt_style", "seed", "rl", "sampler", "memory"),
}
# Parts of keys in these blocks that do not change the weights.
_NEUTRAL = {"logging_steps", "save_steps", "watch", "gradient_checkpointing", "trace"}


def kind_of(stage: str) -> str:
    """The kind of a stage: base, rl or cold_start."""
    return stage if stage in ("base", "rl") else "cold_start"


def changed_options(saved: str, config: RunConfig, stages: Collection[str]) -> list[str]:
    """Full keys of the options that changed and that the weights of these stages depend on.

    saved: the text of config.yaml; stages: empty for all. Raises UserError for invalid YAML."""
    return [key for key in diff_configs(saved, config) if changes_weights(key, stages)]


def changes_weights(key: str, stages: Collection[str] = ()) -> bool:
    """Whether the weights of one of these stages (empty: any stage) depend on an option."""
    kinds = {kind_of(stage) for stage in stages} or _WEIGHT_OPTIONS.keys()
    blocks = {block for kind in kinds for block in _WEIGHT_OPTIONS[kind]}
    parts = key.split(".")
    begins = {".".join(parts[: i + 1]) for i in range(len(parts))}
    return not begins.isdisjoint(blocks) and _NEUTRAL.isdisjoint(parts)
