"""Options of a YAML file as arguments: --config FILE."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from weft_rl.config.arguments import ALIASES, unknown_option
from weft_rl.config.fields import Leaf, argument, leaves, shown
from weft_rl.config.schema import RunConfig
from weft_rl.config.values import broken_rule, parse
from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_yaml
from weft_rl.runs.renamed import flattened, with_new_keys

_FLAG = "--config"
_PRESETS = ("preset", "rl.preset")
# Of a run's config.yaml: its directory, and how it was made.
_NOT_REPEATED = ("out", "resume", "versions", "revision")


def with_config_file(
    argv: Sequence[str], schema: type[Any] = RunConfig, reserved: Collection[str] = ()
) -> list[str]:
    """Replace `--config FILE` by the file's options as arguments; those in argv take precedence.

    FILE: options of a run and of `schema`, nested or by full key. Of the config.yaml of a run or a
    comparison, the directory is not taken over. reserved: keys to leave out. Raises UserError for
    two files, an unreadable one, unknown options and invalid values."""
    arguments, files = [], list[str]()
    remaining = iter(argv)
    for word in remaining:
        flag, equals, path = word.partition("=")
        if flag == _FLAG:
            files.append(path if equals else next(remaining, ""))
        else:
            arguments.append(word)
    if not files:
        return arguments
    if len(files) > 1 or not files[0]:
        raise UserError(f"{_FLAG}: takes one YAML file; write {_FLAG} my.yaml")
    path, known = Path(files[0]), leaves(RunConfig) | leaves(schema)
    skipped = {_key(word.partition("=")[0]) for word in arguments} | {*reserved}
    options = {key: value for key, value in _options(path, known).items() if key not in skipped}
    for key in options.keys() & known.keys():
        check_value(path, key, options[key], known[key])
    return [f"{key}={argument(value)}" for key, value in options.items()] + arguments


def check_value(path: Path, key: str, value: Any, leaf: Leaf) -> None:
    """Raise UserError naming the file unless an option's value is valid."""
    if broken := broken_rule(leaf.kind, leaf.bounds, parse(leaf.kind, value)):
        raise UserError(f"{path}: {key}={shown(value)}: must be {broken}; correct it")


def _key(name: str) -> str:
    return ALIASES.get(name, name)


def _options(path: Path, known: dict[str, Leaf]) -> dict[str, Any]:
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: has no options; write one per line, like seed: 1")
    if "versions" in tree:  # of a run or a comparison, perhaps an earlier one
        flat = {key.removeprefix("run."): value for key, value in flattened(tree)}
        kept = [key for key in flat if key.partition(".")[0] not in _NOT_REPEATED]
        tree = with_new_keys({key: flat[key] for key in kept})
    options: dict[str, Any] = {}
    for name, value in flattened(tree):
        key, text = _key(name), f"{path}: {name}={shown(value)}"
        if key not in known and key not in _PRESETS:
            raise UserError(f"{text}: {unknown_option(key, argument(value), known)}")
        if key in options:
            raise UserError(f"{text}: already given as {key}={shown(options[key])}; keep one")
        options[key] = value
    return options
