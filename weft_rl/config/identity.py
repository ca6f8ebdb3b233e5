"""Which options a run's weights depend on: what makes a run directory this run's."""

from collections.abc import Collection

from weft_rl.config.load import diff_configs
from weft_rl.config.schema import RunConfig

# By the kind of a stage: the options, and blocks of them, that its weights depend on.
_DECIDES = {
    "base": ("model", "base", "sampler.gen_length", "memory.mixed_precision"),
    "cold_start": ("model", "data", "prompt_style", "seed", "cold_start", "memory"),
    "rl": ("model", "task", "rewards", "prompt_style", "seed", "rl", "sampler", "memory"),
}
# Parts of a key in these blocks that change no weights: what is logged, kept, or computed twice.
_FREE = {"logging_steps", "save_steps", "watch", "gradient_checkpointing", "trace"}


def kind_of(stage: str) -> str:
    """base, rl or cold_start."""
    return stage if stage in ("base", "rl") else "cold_start"


def changed_options(saved: str, config: RunConfig, stages: Collection[str]) -> list[str]:
    """Full keys of the options that make the weights of these stages other ones than those that
    config.yaml describes; of no stages, those of any.

    Raises UserError for a text that is no YAML."""
    return [key for key in diff_configs(saved, config) if changes_weights(key, stages)]


def changes_weights(key: str, stages: Collection[str] = ()) -> bool:
    """Whether weights of one of these stages depend on an option; of no stages, those of any."""
    kinds = {kind_of(stage) for stage in stages} or _DECIDES.keys()
    blocks = {block for kind in kinds for block in _DECIDES[kind]}
    parts = key.split(".")
    begins = {".".join(parts[: i + 1]) for i in range(len(parts))}
    return not begins.isdisjoint(blocks) and _FREE.isdisjoint(parts)
