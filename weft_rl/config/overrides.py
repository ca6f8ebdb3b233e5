"""Command lines that repeat or resume a run."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from weft_rl.config.load import diff_configs, load_run_config


def options_of(settings: Mapping[str, Any]) -> list[str]:
    """`key=value` arguments for the model and all options that differ from its preset, except out.

    settings: the content of a run's config.yaml; if it is empty, so is the result."""
    if "model" not in settings:
        return []
    values = dict(flattened(settings))
    # options equal to the preset's are left out
    plain = load_run_config([f"model={settings['model']}"], command="weft_rl.pipeline")
    keys = ["model", *diff_configs(yaml.safe_dump(dict(settings)), plain)]
    return [f"{key}={argument(values[key])}" for key in keys if key in values and key != "out"]


def resume_command(argv: Sequence[str], made: Path | None) -> str:
    """The arguments that resume a run, quoted for a shell.

    made: the run directory, if the arguments do not name it. resume=never is removed."""
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
