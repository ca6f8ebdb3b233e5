"""Options saved in a run directory: differences, and arguments that repeat or resume the run."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict
from pathlib import Path
from typing import Any

import yaml

from weft_rl.config.a2d import A2DConfig
from weft_rl.config.fields import argument, defaults, leaves
from weft_rl.config.load import load_run_config
from weft_rl.config.schema import RunConfig
from weft_rl.io.safe_files import parse_yaml
from weft_rl.runs.renamed import flattened, with_new_keys

# Options that may change on resume, because they do not affect results.
_MUTABLE_ON_RESUME = ("out", "resume", "stages", "trackers", "reliability")
_PROMPTS = ("prompt_style", "prompt_template", "system")
_TRACES = ("model", "data", "prompt_style", "system", "eval.nelbo_records")
# Kind of stage -> options and blocks that determine its weights.
_WEIGHT_OPTIONS = {
    "base": ("model", "base", "sampler.gen_length", "memory.mixed_precision"),
    "a2d": ("a2d", *_TRACES, "cold_start.records", "cold_start.data", "memory.mixed_precision"),
    # whose data is not `self`
    "a2d of other data": (
        *("a2d", "model", "prompt_style", "system", "cold_start.data.bad_records"),
        "memory.mixed_precision",
    ),
    "cold_start": (*_TRACES, "seed", "cold_start", "memory"),
    "rl": ("model", "task", "rewards", *_PROMPTS, "seed", "rl", "sampler", "memory"),
}
# Options that earlier runs did not have -> their value.
_ADDED: dict[str, Any] = {"prompt_template": None, "system": None, "eval.nelbo_records": 0}
_ADDED |= {f"a2d.{name}": value for name, value in defaults(A2DConfig).items()}
# Key parts that do not affect the weights.
_NEUTRAL = {"logging_steps", "save_steps", "eval_every", "watch", "gradient_checkpointing", "trace"}


def diff_configs(saved: str, config: RunConfig) -> list[str]:
    """Return differing keys, except those mutable on resume. Raises UserError for bad YAML.

    saved: the text of config.yaml."""
    tree = parse_yaml(saved, Path("config.yaml"), "choose another out")
    old = _ADDED | dict(flattened(with_new_keys(tree))) if isinstance(tree, dict) else {}
    new = dict(flattened(asdict(config)))
    keys = [key for key in leaves(RunConfig) if key.split(".")[0] not in _MUTABLE_ON_RESUME]
    return [key for key in keys if old.get(key, MISSING) != new[key]]


def changed_options(saved: str, config: RunConfig, stages: Collection[str]) -> list[str]:
    """Return the changed options that the weights of these stages depend on; empty: any stage."""
    kinds = {_kind(stage, config) for stage in stages}
    return [key for key in diff_configs(saved, config) if changes_weights(key, kinds)]


def _kind(stage: str, config: RunConfig) -> str:
    if stage == "a2d" and config.a2d.data != A2DConfig.data:
        return "a2d of other data"
    return stage if stage in _WEIGHT_OPTIONS else "cold_start"


def changes_weights(key: str, kinds: Collection[str] = ()) -> bool:
    """Return whether an option affects the weights of these kinds of stages (empty: all)."""
    blocks = [block for kind in kinds or _WEIGHT_OPTIONS for block in _WEIGHT_OPTIONS[kind]]
    is_inside = any(f"{key}.".startswith(f"{block}.") for block in blocks)
    return is_inside and _NEUTRAL.isdisjoint(key.split("."))


def options_of(settings: Mapping[str, Any]) -> list[str]:
    """Return `key=value` arguments: the model and options that differ from its preset, except out.

    settings: the content of config.yaml; an empty one gives no arguments."""
    if "model" not in settings:
        return []
    values = dict(flattened(settings))
    plain = load_run_config([f"model={settings['model']}"], command="weft_rl.pipeline")
    keys = ["model", *diff_configs(yaml.safe_dump(dict(settings)), plain)]
    return [f"{key}={argument(values[key])}" for key in keys if key in values and key != "out"]


def resume_command(argv: Sequence[str], run: Path | None) -> str:
    """Return the shell arguments that resume a run. run: its directory, if argv has no out=."""
    words = [word for word in argv if word != "resume=never"]
    return shlex.join([*words, *([] if run is None else [f"out={run}"])])
