"""From presets and key=value arguments to typed options: the only reader of YAML."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import SequenceMatcher
from functools import reduce
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from weft_rl.config.options import Leaf, check_fields, kinds, leaves, rules, shown
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.safe_files import parse_yaml

Options = TypeVar("Options")

# What a model that no preset is named after is taken for.
_LARGE = "llada_8b"
# What lays a method's values over a preset; like preset= it is an argument and no option.
_METHOD = "rl.preset"
# May change between two calls on one run folder: it may have moved, stages may be added, and how it
# is kept and who else is told of its metrics changes none.
_FREE = ("out", "resume", "stages", "trackers", "reliability")
# Below this likeness difflib's nearest key has little to do with what was typed.
_ALIKE = 0.7


def load_run_config(argv: Sequence[str], *, command: str) -> RunConfig:
    """The options of a run: the schema's defaults, then a preset's, then the arguments'.

    `preset=NAME` picks the preset; without it, model=NAME picks the one of that name, and any other
    model the large one's. `rl.preset=NAME` lays a method's values over it.
    Raises UserError for a mistake in the arguments and SystemExit(0) after --help and
    --print-config, which print to standard output."""
    names = preset_names()
    words, wanted = _flags(argv)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    model = given.get("model", RunConfig.model)
    preset = given.get("preset", model if model in names else _LARGE)
    if preset not in names:
        raise UserError(f"preset={shown(preset)}: no such preset; there are {', '.join(names)}")
    layers = _layers(preset)
    method = given.get(_METHOD)
    if method is not None:
        if method not in (methods := preset_names("rl")):
            there = ", ".join(methods)
            raise UserError(f"{_METHOD}={shown(method)}: no such method; there are {there}")
        layers += _layers(f"rl/{method}")
    if wanted == "--help":
        first = f"preset={preset}: where the defaults below come from, one of {', '.join(names)};"
        chosen = "without it the preset called like the model, for any other model llada_8b"
        over = f"{_METHOD}=...: a method's values over it, one of {', '.join(preset_names('rl'))}"
        about = f"{RunConfig.__doc__}\n\n{first}\n{chosen}\n{over}"
        _leave(_help(RunConfig, command, about, None, layers))
    pairs = _pairs(RunConfig, words, None, extra=("preset", _METHOD))
    for key in ("preset", _METHOD):
        pairs.pop(key, None)
    config = _merged(RunConfig, pairs, layers)
    if wanted:
        _leave(to_yaml(config))
    return config


def parse_options(
    schema: type[Options],
    argv: Sequence[str],
    *,
    command: str,
    description: str,
    positional: str | None = None,
) -> Options:
    """The options of a small command, as the frozen dataclass `schema`.

    `positional` names the field (list[str] or str) of the arguments without "=", and of those with
    a "/" before it: a path. Raises UserError and SystemExit as load_run_config does."""
    words, wanted = _flags(argv)
    if wanted == "--help":
        _leave(_help(schema, command, description, positional))
    config = _merged(schema, _pairs(schema, words, positional))
    if wanted:
        _leave(to_yaml(config))
    return config


def preset_names(folder: str = "") -> list[str]:
    """The presets in configs/, or in a folder there, sorted."""
    files = (resources.files("configs") / folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def _layers(preset: str) -> list[Any]:
    """A preset's options, after those of the presets that its key `preset` lays it over."""
    text = (resources.files("configs") / f"{preset}.yaml").read_text(encoding="utf-8")
    tree: Any = OmegaConf.create(text)
    below = tree.pop("preset", [])
    return [*(layer for name in below for layer in _layers(name)), tree]


def to_yaml(config: Any) -> str:
    """Options as YAML in the schema's order; equal options give equal text."""
    # OmegaConf takes ${...} in a text for a reference; unescaped, PyYAML reads U+0085 as a space
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=False)


def diff_configs(saved: str, config: RunConfig) -> list[str]:
    """Full keys of the options whose values differ from those in a run folder's config.yaml.

    Where the run lies, whether it goes on, its stages, trackers and `reliability` are free. Raises
    UserError for a text that is no YAML."""
    old = parse_yaml(saved, Path("config.yaml"), "choose another out")
    new = yaml.safe_load(to_yaml(config))
    keys = [key for key in leaves(RunConfig) if key.split(".")[0] not in _FREE]
    return [key for key in keys if _at(old, key) != _at(new, key)]


def _at(tree: Any, key: str) -> Any:
    """The value under a full key; MISSING, unlike any value, where there is none."""
    return reduce(
        lambda node, name: node.get(name, MISSING) if isinstance(node, dict) else MISSING,
        key.split("."),
        tree,
    )


def _leave(text: str) -> NoReturn:
    sys.stdout.write(text)
    sys.stdout.flush()
    raise SystemExit(0)


def _flags(argv: Sequence[str]) -> tuple[list[str], str]:
    """The arguments without flags, and --help, --print-config or nothing."""
    words, wanted = [], ""
    for word in argv:
        if word in ("--help", "-h"):
            wanted = "--help"
        elif word == "--print-config":
            wanted = wanted or word
        elif word.startswith("-"):
            key, equals, _ = word.lstrip("-").partition("=")
            cure = "there are --help and --print-config"
            cure = f"options have no dashes, write {shown(key)}=..." if equals else cure
            raise UserError(f"{shown(word)}: no such flag; {cure}")
        else:
            words.append(word)
    return words, wanted


def _pairs(
    schema: type[Any], words: Sequence[str], positional: str | None, extra: Sequence[str] = ()
) -> dict[str, str | list[str]]:
    """Each given key with its text. Raises UserError for unknown, malformed and repeated ones."""
    known = leaves(schema)
    pairs: dict[str, str | list[str]] = {}
    loose: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
        if positional is not None and (not equals or "/" in key):
            loose.append(word)
            continue
        if key not in known and key not in extra:
            raise UserError(f"{shown(word) or repr(word)}: {_unknown(key, bool(equals), known)}")
        if not equals:
            raise UserError(f"{key}: needs a value; write {key}=...")
        if key in pairs:
            raise UserError(f"{shown(word)}: already given as {key}={shown(pairs[key])}; keep one")
        pairs[key] = text
    if positional is not None and loose:
        many = get_origin(known[positional].kind) is list
        if positional in pairs:
            raise UserError(f"{shown(loose[0])}: {positional}= is given too; keep one of them")
        if len(loose) > 1 and not many:
            raise UserError(f"{shown(loose[1])}: there is one {positional} already; keep one")
        pairs[positional] = loose if many else loose[0]
    return pairs


def _unknown(key: str, equals: bool, known: Mapping[str, Leaf]) -> str:
    """What is wrong with a key that is no option, and the nearest ones."""
    inside = [full for full in known if full.startswith(f"{key}.")]
    if inside:
        return f"is a group of options; set one of them, like {inside[0]}=..."
    key = key[:100]  # difflib's time grows with the square of the length
    name = key.rpartition(".")[2]
    likeness = {
        full: max(
            SequenceMatcher(None, full, key).ratio(),
            # a wrong or forgotten block
            SequenceMatcher(None, full.rpartition(".")[2], name).ratio(),
        )
        for full in known
    }
    best = max(likeness.values())
    near = [full for full, value in likeness.items() if value == best and best >= _ALIKE]
    cure = f"did you mean {' or '.join(near)}?" if near else "--help lists the options"
    return f"no such option; {cure}" if equals else f"is not key=value; {cure}"


def _merged(
    schema: type[Options], pairs: Mapping[str, str | list[str]], presets: Sequence[Any] = ()
) -> Options:
    """Defaults, presets and layers as the schema's dataclass. Raises UserError naming the key."""
    known = leaves(schema)
    # frozen dataclasses make read-only trees, of which merge returns changed copies
    tree = OmegaConf.merge(OmegaConf.structured(schema), *presets)
    as_given: dict[str, Any] = {}
    for key, text in pairs.items():
        value = _value(known[key].kind, text)
        merged = _converted(tree, key, value)
        if merged is None:
            as_given[key] = value
        else:
            tree = merged
    for key in sorted(OmegaConf.missing_keys(tree) - as_given.keys()):
        raise UserError(f"{key}: is missing; write {key}=...")
    return _built(schema, OmegaConf.to_container(tree), as_given)


def _converted(tree: Any, key: str, value: str | list[str] | None) -> Any:
    """The tree with the value in it, read by its option's type; None for a value that does not fit
    and for OmegaConf's references and sign of a missing one."""
    if any(mark in str(value) for mark in ("${", "???")):
        return None
    try:
        return OmegaConf.merge(tree, _nested(key, value))
    except OmegaConfBaseException:
        return None


def _nested(key: str, value: Any) -> Any:
    return reduce(lambda inner, name: {name: inner}, reversed(key.split(".")), value)


def _value(kind: Any, text: str | list[str]) -> Any:
    """A text as null, the parts of a list, or itself."""
    if text == "null" and NoneType in get_args(kind):
        return None
    if get_origin(kind) is not list or isinstance(text, list):
        return text
    # a shell may have eaten the brackets
    inside = text.strip().removeprefix("[").removesuffix("]")
    return [part.strip() for part in inside.split(",")] if inside.strip() else []


def _built(
    schema: type[Options], tree: Any, as_given: Mapping[str, Any], prefix: str = ""
) -> Options:
    """The schema's dataclass from a tree, whose values those in `as_given` replace."""
    values = {name: as_given.get(prefix + name, tree[name]) for name in kinds(schema)}
    # before the blocks check themselves: only here is the full key of a nested one known
    check_fields(schema, values, prefix)
    for name, kind in kinds(schema).items():
        if is_dataclass(kind):
            values[name] = _built(kind, tree[name], as_given, f"{prefix}{name}.")
    return schema(**values)


def _help(
    schema: type[Any],
    command: str,
    about: str,
    positional: str | None,
    presets: Sequence[Any] = (),
) -> str:
    """Every option with its default, grouped by block."""
    tree = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), *presets))
    first = f"{positional.upper()} ... " if positional else ""
    lines = [f"usage: python -m {command} {first}key=value ...", "", about]
    lines += _block_help(schema, tree, "")
    lines += ["", "  --print-config  print the resolved options as YAML and stop"]
    lines += ["  --help          print this and stop", ""]
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
