"""Options of a YAML file as arguments: --config FILE."""

from collections.abc import Collection, Sequence
from pathlib import Path

from weft_rl.config.arguments import unknown_option
from weft_rl.config.fields import argument, leaves, shown
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.io.safe_files import read_yaml
from weft_rl.runs.renamed import flattened, with_new_keys

_FLAG = "--config"
_PRESETS = ("preset", "rl.preset")
# Of a run's config.yaml: its directory, and how it was made.
_NOT_REPEATED = ("out", "resume", "versions", "revision")


def with_config_file(argv: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Replace `--config FILE` by the file's options as arguments; those in argv take precedence.

    FILE: options of a run, nested or by full key, such as a run's config.yaml, whose directory is
    not taken over. reserved: keys to leave out. Raises UserError for two files, for an unreadable
    one and for unknown options."""
    words, files = [], list[str]()
    remaining = iter(argv)
    for word in remaining:
        flag, equals, path = word.partition("=")
        if flag == _FLAG:
            files.append(path if equals else next(remaining, ""))
        else:
            words.append(word)
    if not files:
        return words
    if len(files) > 1 or not files[0]:
        raise UserError(f"{_FLAG}: takes one YAML file; write {_FLAG} my.yaml")
    given = {word.partition("=")[0] for word in words}
    skipped = {*given, *reserved}
    return [f"{key}={text}" for key, text in _options(Path(files[0])) if key not in skipped] + words


def _options(path: Path) -> list[tuple[str, str]]:
    tree, known = read_yaml(path), leaves(RunConfig)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: has no options; write one per line, like seed: 1")
    if "versions" in tree:  # of a run, perhaps an earlier one
        tree = with_new_keys({key: tree[key] for key in tree if key not in _NOT_REPEATED})
    options = [(str(key), value) for key, value in flattened(tree)]
    for key, value in options:
        if key not in known and key not in _PRESETS:
            text = argument(value)
            raise UserError(f"{path}: {key}={shown(value)}: {unknown_option(key, text, known)}")
    return [(key, argument(value)) for key, value in options]
