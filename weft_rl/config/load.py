"""Typed options from presets and key=value arguments."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, is_dataclass
from functools import cache, reduce
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from weft_rl.config.arguments import flags, pairs_of
from weft_rl.config.fields import BadOption, check_fields, kinds, leaves, shown
from weft_rl.config.help import help_text
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.io.safe_files import parse_yaml
from weft_rl.runs.folder import CONFIG, checkpoint_of, read_config, run_of
from weft_rl.runs.renamed import with_new_keys

Options = TypeVar("Options")

# Preset of models without a preset of their own.
_DEFAULT_PRESET = "llada_8b"
# Argument that selects an RL method's preset; not an option.
_METHOD = "rl.preset"
# Options that may change on resume, because they do not affect results.
_MUTABLE_ON_RESUME = ("out", "resume", "stages", "trackers", "reliability")
# Options that are not inherited from a checkpoint's run.
_NOT_INHERITED = ("model", "out", "resume", "stages", "trackers", "device")
_MODELS = ("model", "cold_start.ref_model")


def load_run_config(argv: Sequence[str], *, command: str, tell: bool = False) -> RunConfig:
    """Return the options of a run: schema defaults, then presets, then arguments.

    `preset=NAME` selects the preset. The default preset is the one named like the model. A
    checkpoint of a run inherits that run's options; other models use llada_8b. `rl.preset=NAME`
    adds the values of an RL method. A run directory or stage folder given as a model is replaced by
    its checkpoint.

    tell: print a line to standard error if the defaults come from a run.
    Raises UserError for invalid arguments, and SystemExit(0) after --help and --print-config."""
    words, wanted = flags(argv, leaves(RunConfig))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    model = given.get("model", "").strip() or RunConfig.model
    method, preset = given.get(_METHOD), given.get("preset")
    if model not in preset_names():
        model = checkpoint_of(model)
    run = run_of(model) if preset is None else None
    layers, source = _defaults(model, preset, run)
    if method is not None:
        if method not in (methods := preset_names("rl")):
            there = ", ".join(methods)
            raise UserError(f"{_METHOD}={shown(method)}: unknown method; use {there}")
        layers += _layers(f"rl/{method}")
    if wanted == "--help":
        names = ", ".join(preset_names())
        first = f"Defaults below: {source}. Presets (preset=NAME): {names};"
        chosen = (
            "without it, the preset named like the model; for a checkpoint of a run, the options\n"
            "of that run; for any other model, llada_8b."
        )
        over = f"RL methods ({_METHOD}=NAME): {', '.join(preset_names('rl'))}."
        about = f"{RunConfig.__doc__}\n\n{first}\n{chosen}\n{over}"
        _leave(help_text(RunConfig, command, about, None, layers))
    pairs = pairs_of(RunConfig, words, None, extra=("preset", _METHOD))
    for key in ("preset", _METHOD):
        pairs.pop(key, None)
    for key in pairs.keys() & {*_MODELS}:
        pairs[key] = checkpoint_of(str(pairs[key]), key)
    if run is not None and (tell or wanted):
        sys.stderr.write(f"{command}: model={shown(model)}: {source}\n")
    config = _merged(RunConfig, pairs, layers)
    if wanted:
        _leave(to_yaml(config))
    return config


def _defaults(model: str, preset: str | None, run: Path | None) -> tuple[list[Any], str]:
    """Return the defaults below the arguments, and a description of their source."""
    names = preset_names()
    if preset is not None and preset not in names:
        raise UserError(f"preset={shown(preset)}: unknown preset; use {', '.join(names)}")
    if run is None:
        preset = preset or (model if model in names else _DEFAULT_PRESET)
        return _layers(preset), f"preset={preset}"
    saved = read_config(run)
    layers = _layers(saved["model"] if saved.get("model") in names else _DEFAULT_PRESET)
    tree = OmegaConf.merge(_schema(RunConfig), *layers)
    for key in leaves(RunConfig):
        value = _at(saved, key)
        if value is not MISSING and key.split(".")[0] not in _NOT_INHERITED:
            merged = _converted(tree, key, value)
            if merged is None:
                raise UserError(
                    f"{run / CONFIG}: {key}={shown(value)} is not a valid option; correct it"
                )
            tree = merged
    return [tree], f"defaults from the run that wrote it, {run / CONFIG}"


def parse_options(
    schema: type[Options],
    argv: Sequence[str],
    *,
    command: str,
    description: str,
    positional: str | None = None,
) -> Options:
    """Parse the options of a command into the frozen dataclass `schema`.

    positional: the field (list[str] or str) for arguments without "=" and for paths with "=".
    Raises UserError and SystemExit like load_run_config."""
    words, wanted = flags(argv, leaves(schema))
    if wanted == "--help":
        _leave(help_text(schema, command, description, positional))
    config = _merged(schema, pairs_of(schema, words, positional))
    if wanted:
        _leave(to_yaml(config))
    return config


def preset_names(folder: str = "") -> list[str]:
    """Return the sorted names of the presets in configs/ or one of its folders."""
    files = (resources.files("weft_rl.configs") / folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@cache
def _schema(schema: type[Any]) -> Any:
    return OmegaConf.structured(schema)


def _layers(preset: str) -> list[Any]:
    """Return the option layers of a preset: those it builds on, then its own."""
    text = (resources.files("weft_rl.configs") / f"{preset}.yaml").read_text(encoding="utf-8")
    tree: Any = OmegaConf.create(text)
    below = tree.pop("preset", [])
    return [*(layer for name in below for layer in _layers(name)), tree]


def to_yaml(config: Any) -> str:
    """Format options as YAML in schema order; equal options give equal text."""
    # OmegaConf would resolve ${...}; without escapes, PyYAML reads U+0085 as a space
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=False)


def diff_configs(saved: str, config: RunConfig) -> list[str]:
    """Return differing keys, except those mutable on resume. Raises UserError for bad YAML."""
    old = parse_yaml(saved, Path("config.yaml"), "choose another out")
    old = with_new_keys(old) if isinstance(old, dict) else old
    new = yaml.safe_load(to_yaml(config))
    keys = [key for key in leaves(RunConfig) if key.split(".")[0] not in _MUTABLE_ON_RESUME]
    return [key for key in keys if _at(old, key) != _at(new, key)]


def _at(tree: Any, key: str) -> Any:
    return reduce(
        lambda node, name: node.get(name, MISSING) if isinstance(node, dict) else MISSING,
        key.split("."),
        tree,
    )


def _leave(text: str) -> NoReturn:
    sys.stdout.write(text)
    sys.stdout.flush()
    raise SystemExit(0)


def _merged(
    schema: type[Options], pairs: Mapping[str, str | list[str]], presets: Sequence[Any] = ()
) -> Options:
    """Merge defaults, presets and arguments. Raises UserError naming the key."""
    known = leaves(schema)
    tree = OmegaConf.merge(_schema(schema), *presets)  # a copy
    as_given: dict[str, Any] = {}
    for key, text in pairs.items():
        value = _value(known[key].kind, text)
        merged = _converted(tree, key, value)
        if merged is None:
            as_given[key] = value
        else:
            tree = merged
    for key in sorted(OmegaConf.missing_keys(tree) - as_given.keys()):
        raise UserError(f"{key}: missing; write {key}=...")
    try:
        return _built(schema, OmegaConf.to_container(tree), as_given)
    except BadOption as error:
        near = error.find()
        if not (near or error.usual):
            raise
        usual = OmegaConf.merge(_schema(schema), *presets)
        value = _at(OmegaConf.to_container(usual), error.key)
        tries = [each for each in (*near, value, *error.usual) if each not in (MISSING, "???")]
        fix = _first_that_fits(schema, tree, as_given, error.key, tries)
        raise BadOption(error.key, error.value, error.rule, lambda: fix) from error


def _first_that_fits(
    schema: type[Any], tree: Any, as_given: Mapping[str, Any], key: str, tries: Sequence[Any]
) -> list[Any]:
    """Return the first value that makes all options valid, as a list of at most one.

    The fallback is the first value that leaves only another option invalid."""
    second = []
    for value in tries:
        merged = _converted(tree, key, value)
        if merged is None:
            continue
        others = {name: text for name, text in as_given.items() if name != key}
        try:
            _built(schema, OmegaConf.to_container(merged), others)
        except BadOption as error:
            second += [value] if error.key in others and not second else []
        else:
            return [value]
    return second


def _converted(tree: Any, key: str, value: Any) -> Any:
    """Return a tree with the converted value; None for a wrong type or an OmegaConf marker."""
    if any(mark in str(value) for mark in ("${", "???")):
        return None
    try:
        return OmegaConf.merge(tree, _nested(key, value))
    except OmegaConfBaseException:
        return None


def _nested(key: str, value: Any) -> Any:
    return reduce(lambda inner, name: {name: inner}, reversed(key.split(".")), value)


def _value(kind: Any, text: str | list[str]) -> Any:
    """Parse null and lists; other text is returned unchanged."""
    if text == "null" and NoneType in get_args(kind):
        return None
    if get_origin(kind) is not list or isinstance(text, list):
        return text
    # the shell may have removed the brackets
    inside = text.strip().removeprefix("[").removesuffix("]")
    return [part.strip() for part in inside.split(",")] if inside.strip() else []


def _built(
    schema: type[Options], tree: Any, as_given: Mapping[str, Any], prefix: str = ""
) -> Options:
    """Build the dataclass from a tree; values in `as_given` take precedence."""
    values = {name: as_given.get(prefix + name, tree[name]) for name in kinds(schema)}
    # check here, where the full key of nested options is known
    check_fields(schema, values, prefix)
    for name, kind in kinds(schema).items():
        if is_dataclass(kind):
            values[name] = _built(kind, tree[name], as_given, f"{prefix}{name}.")
    return schema(**values)
