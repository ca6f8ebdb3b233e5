"""`weft-rl presets`: the presets and the RL methods, a line each."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from weft_rl.config.fields import Block
from weft_rl.config.load import parse_options, preset_names


@dataclass(frozen=True)
class PresetsConfig(Block):
    """No options."""


def main(argv: Sequence[str]) -> int:
    """Print names and descriptions; `--print-config preset=NAME` of `run` shows the values."""
    about = "List the presets. weft-rl run preset=NAME --print-config prints a preset's values."
    parse_options(PresetsConfig, argv, command="weft_rl.config.presets", description=about)
    for folder, option in (("", "preset"), ("rl/", "rl.preset")):
        names = preset_names(folder)
        width = max(map(len, names))
        lines = [f"  {name:<{width}}  {_description(f'{folder}{name}')}" for name in names]
        sys.stdout.write("\n".join([f"{option}=NAME", *lines, ""]))
    return 0


def _description(path: str) -> str:
    """The comment at the head of a preset's file."""
    file = resources.files("weft_rl.configs") / f"{path}.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    head = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(line.removeprefix("#").strip() for line in head)
