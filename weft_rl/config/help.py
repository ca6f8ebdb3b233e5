"""The help text of a command."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from weft_rl.config.fields import kinds, rules, shown


def help_text(
    schema: type[Any],
    command: str,
    about: str,
    positional: str | None,
    presets: Sequence[Any] = (),
) -> str:
    """All options with their defaults, grouped by block."""
    tree = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), *presets))
    first = f"{positional.upper()} ... " if positional else ""
    lines = [f"usage: python -m {command} {first}key=value ...", "", about]
    lines += _block_help(schema, tree, "")
    lines += ["", "  --print-config  print the resolved options as YAML and exit"]
    lines += ["  --help          print this help and exit", ""]
    return "\n".join(lines)


def _block_help(schema: type[Any], tree: Any, prefix: str) -> list[str]:
    lines = ["", f"{prefix.rstrip('.')}: {schema.__doc__}"] if prefix else [""]
    nested = []
    for item in fields(schema):
        kind, value = kinds(schema)[item.name], tree[item.name]
        if is_dataclass(kind):
            nested += _block_help(kind, value, f"{prefix}{item.name}.")
            continue
        left = f"{prefix}{item.name}={'' if value == '???' else shown(value)}"
        limits = rules(kind, item.metadata.get("bounds", {}))
        text = item.metadata.get("help", "") + (f" ({limits})" if limits else "")
        lines.append(f"  {left:<40}  {text}")
    return lines + nested
