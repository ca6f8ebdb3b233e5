"""Command lines that repeat or resume a run."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from weft_rl.config.load import diff_configs, load_run_config


def options_of(settings: Mapping[str, Any]) -> list[str]:
    """Return `key=value` arguments: the model and options that differ from its preset, except out.

    settings: the content of config.yaml; an empty one gives no arguments."""
    if "model" not in settings:
        return []
    values = dict(flattened(settings))
    plain = load_run_config([f"model={settings['model']}"], command="weft_rl.pipeline")
    keys = ["model", *diff_configs(yaml.safe_dump(dict(settings)), plain)]
    return [f"{key}={argument(values[key])}" for key in keys if key in values and key != "out"]


def resume_command(argv: Sequence[str], made: Path | None) -> str:
    """Return the shell arguments that resume a run. made: run directory, if argv has no out=."""
    words = [word for word in argv if word != "resume=never"]
    return shlex.join([*words, *([] if made is None else [f"out={made}"])])


def argument(value: Any) -> str:
    """Format a value for the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full key and value of each nested option."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
