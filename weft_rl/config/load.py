"""From presets and key=value arguments to typed options: the only reader of YAML."""

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

from weft_rl.config.fields import BadOption, check_fields, kinds, leaves, shown
from weft_rl.config.help import help_text
from weft_rl.config.schema import RunConfig
from weft_rl.config.words import flags, pairs_of
from weft_rl.errors import UserError
from weft_rl.io.safe_files import parse_yaml
from weft_rl.runs.folder import CONFIG, checkpoint_of, read_config, run_of

Options = TypeVar("Options")

# What a model that no preset is named after is taken for.
_LARGE = "llada_8b"
# What lays a method's values over a preset; like preset= it is an argument and no option.
_METHOD = "rl.preset"
# May change between two calls on one run folder: it may have moved, stages may be added, and how it
# is kept and who else is told of its metrics changes none.
_FREE = ("out", "resume", "stages", "trackers", "reliability")
# Of a run whose checkpoint another run starts from: what is this run's own, or this machine's.
_NOT_INHERITED = ("model", "out", "resume", "stages", "trackers", "device")
# Options that name a model.
_MODELS = ("model", "cold_start.estimate.reference")


def load_run_config(argv: Sequence[str], *, command: str, tell: bool = False) -> RunConfig:
    """The options of a run: the schema's defaults, then a preset's, then the arguments'.

    `preset=NAME` picks the preset; without it, model=NAME picks the one of that name, a checkpoint
    of a run that run's options, and any other model the large one's. `rl.preset=NAME` lays a
    method's values over it. A run directory or a stage's folder that a model is named by becomes
    its checkpoint.
    tell: print a line, on standard error, where the defaults are a run's.
    Raises UserError for a mistake in the arguments and SystemExit(0) after --help and
    --print-config, which print to standard output."""
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
            raise UserError(f"{_METHOD}={shown(method)}: no such method; there are {there}")
        layers += _layers(f"rl/{method}")
    if wanted == "--help":
        names = ", ".join(preset_names())
        first = f"{source}: where the defaults below come from; preset= takes one of {names};"
        chosen = (
            "without it the preset called like the model, for a checkpoint of a run that run's\n"
            "options, for any other model llada_8b"
        )
        over = f"{_METHOD}=...: a method's values over it, one of {', '.join(preset_names('rl'))}"
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
    """What lies below the arguments, and where it comes from."""
    names = preset_names()
    if preset is not None and preset not in names:
        raise UserError(f"preset={shown(preset)}: no such preset; there are {', '.join(names)}")
    if run is None:
        preset = preset or (model if model in names else _LARGE)
        return _layers(preset), f"preset={preset}"
    saved = read_config(run)
    layers = _layers(saved["model"] if saved.get("model") in names else _LARGE)
    tree = OmegaConf.merge(_schema(RunConfig), *layers)
    for key in leaves(RunConfig):
        value = _at(saved, key)
        if value is not MISSING and key.split(".")[0] not in _NOT_INHERITED:
            merged = _converted(tree, key, value)
            if merged is None:
                raise UserError(f"{run / CONFIG}: {key}={shown(value)} is no such option; mend it")
            tree = merged
    return [tree], f"the defaults are those of the run that made it, {run / CONFIG}"


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
    words, wanted = flags(argv, leaves(schema))
    if wanted == "--help":
        _leave(help_text(schema, command, description, positional))
    config = _merged(schema, pairs_of(schema, words, positional))
    if wanted:
        _leave(to_yaml(config))
    return config


def preset_names(folder: str = "") -> list[str]:
    """The presets in configs/, or in a folder there, sorted."""
    files = (resources.files("weft_rl.configs") / folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@cache
def _schema(schema: type[Any]) -> Any:
    """The schema as a tree, which is read-only: frozen dataclasses make such."""
    return OmegaConf.structured(schema)


def _layers(preset: str) -> list[Any]:
    """A preset's options, after those of the presets that its key `preset` lays it over."""
    text = (resources.files("weft_rl.configs") / f"{preset}.yaml").read_text(encoding="utf-8")
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


def _merged(
    schema: type[Options], pairs: Mapping[str, str | list[str]], presets: Sequence[Any] = ()
) -> Options:
    """Defaults, presets and layers as the schema's dataclass. Raises UserError naming the key."""
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
        raise UserError(f"{key}: is missing; write {key}=...")
    try:
        return _built(schema, OmegaConf.to_container(tree), as_given)
    except BadOption as error:
        near = error.find()
        if not (near or error.usual):
            raise
        usual = OmegaConf.merge(_schema(schema), *presets)
        value = _at(OmegaConf.to_container(usual), error.key)
        tries = [each for each in (*near, value, *error.usual) if each not in (MISSING, "???")]
        cure = _first_that_fits(schema, tree, as_given, error.key, tries)
        raise BadOption(error.key, error.value, error.rule, lambda: cure) from error


def _first_that_fits(
    schema: type[Any], tree: Any, as_given: Mapping[str, Any], key: str, tries: Sequence[Any]
) -> list[Any]:
    """The first of these values with which the options are accepted, alone in a list; else one
    with which another given option is refused; none where there is neither."""
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
