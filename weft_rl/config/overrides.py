"""The command-line words that repeat a run or go on with it."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from weft_rl.config.load import diff_configs, load_run_config


def options_of(settings: Mapping[str, Any]) -> list[str]:
    """`key=value` for the model and all that differs from its preset; out is left out.

    settings: a resolved configuration, as a run's config.yaml has it; empty gives no words."""
    if "model" not in settings:
        return []
    values = dict(flattened(settings))
    # options that the model's preset gives need not be spelt out
    plain = load_run_config([f"model={settings['model']}"], command="weft_rl.pipeline")
    keys = ["model", *diff_configs(yaml.safe_dump(dict(settings)), plain)]
    return [f"{key}={argument(values[key])}" for key in keys if key in values and key != "out"]


def resume_command(argv: Sequence[str], made: Path | None) -> str:
    """The arguments that go on with what these began, quoted for a shell.

    made: the folder that was made for it, where the arguments name none. Without resume=never,
    under which the folder would be refused."""
    words = [word for word in argv if word != "resume=never"]
    return shlex.join([*words, *([] if made is None else [f"out={made}"])])


def argument(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested options with its full key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
