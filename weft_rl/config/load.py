"""Typed options from presets and key=value arguments."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_origin

import yaml

from weft_rl.config.arguments import flags, pairs_of
from weft_rl.config.config_file import check_value, with_config_file
from weft_rl.config.fields import BadOption, Leaf, build, defaults, kinds, leaves, shown
from weft_rl.config.schema import RunConfig
from weft_rl.config.values import near_values, parse, rules
from weft_rl.errors import UserError
from weft_rl.runs.folder import CONFIG, checkpoint_of, read_config, run_of
from weft_rl.runs.renamed import flattened

Options = TypeVar("Options")

# Presets of models without one of their own: those to adapt or adapted, and others.
_A2D_PRESET, _DEFAULT_PRESET = "smollm2_135m", "llada_8b"
# Argument that selects an RL method's preset; not an option.
_METHOD = "rl.preset"
# Options that are not inherited from a checkpoint's run.
_NOT_INHERITED = ("model", "out", "resume", "stages", "trackers", "device")
_MODELS = ("model", "cold_start.ref_model")
# Options of `run --help`; --help-all shows all.
_MAIN = ("stages", "model", "task", "data", "seed", "out", "device")
_MAIN += ("cold_start.epochs", "rl.max_steps", "rl.learning_rate")
_RUN_FLAGS = [
    "  --config FILE   options of a YAML file, such as a run's config.yaml",
    "  --dry-run       print options, data and plan; train nothing",
    "  --help-all      print all options and exit",
]


def load_run_config(argv: Sequence[str], *, command: str, tell: bool = False) -> RunConfig:
    """Return the options of a run: schema defaults, then presets, then arguments.

    `preset=NAME` selects the preset. The default preset is the one named like the model. A
    checkpoint of a run inherits that run's options; models to adapt use smollm2_135m, others
    llada_8b. `rl.preset=NAME` adds the values of an RL method. A run directory or stage folder
    given as a model is replaced by its checkpoint.

    tell: print a line to standard error if the defaults come from a run.
    Raises UserError for invalid arguments, and SystemExit(0) after --help and --print-config."""
    words, flag = flags(with_config_file(argv), leaves(RunConfig))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    model = given.get("model", "").strip() or RunConfig.model
    names = preset_names()
    if model not in names:
        model = checkpoint_of(model)
    run = run_of(model) if "preset" not in given else None
    if run is None:
        default = _A2D_PRESET if _is_a2d(model, given.get("stages", "")) else _DEFAULT_PRESET
        preset = given.get("preset", model if model in names else default)
        layer, source = _preset("preset", preset), f"preset={preset}"
    else:
        layer, source = _inherited(run), f"defaults from the run that wrote it, {run / CONFIG}"
    if _METHOD in given:
        layer |= _preset(_METHOD, given[_METHOD], "rl/")
    if flag.startswith("--help"):
        about = (
            f"{RunConfig.__doc__}\n\n"
            f"Defaults below: {source}. Presets (preset=NAME): {', '.join(names)};\n"
            "without it, the preset named like the model; for a checkpoint of a run, the options\n"
            f"of that run; {_A2D_PRESET} for a model to adapt; {_DEFAULT_PRESET} for others.\n"
            f"RL methods ({_METHOD}=NAME): {', '.join(preset_names('rl/'))}."
        )
        _leave(_help(RunConfig, command, about, layer, all_options=flag == "--help-all"))
    pairs = pairs_of(RunConfig, words, None, extra=("preset", _METHOD))
    pairs = {key: text for key, text in pairs.items() if key not in ("preset", _METHOD)}
    for key in pairs.keys() & {*_MODELS}:
        pairs[key] = checkpoint_of(str(pairs[key]), key)
    if run is not None and (tell or flag):
        sys.stderr.write(f"{command}: model={shown(model)}: {source}\n")
    config = _resolved(RunConfig, pairs, layer)
    if flag:
        _leave(to_yaml(config))
    return config


def _is_a2d(model: str, stages: str) -> bool:
    """Whether a model that has no preset is autoregressive, or adapted from such a model."""
    if model.endswith(".gguf") or "a2d" in stages.strip("[] ").replace(" ", "").split(","):
        return True
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        model_type = str(config.get("model_type"))
    except (OSError, ValueError, AttributeError):  # described when the model is read
        return False
    # exports of LLaDA and Dream name their family
    is_plain = model_type in ("llama", "qwen2", "qwen3") and "diffusion_family" not in config
    return is_plain or model_type.startswith("a2d-")


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
    words, flag = flags(argv, leaves(schema))
    if flag.startswith("--help"):
        _leave(_help(schema, command, description, {}, positional))
    config = _resolved(schema, pairs_of(schema, words, positional), {})
    if flag:
        _leave(to_yaml(config))
    return config


def preset_names(folder: str = "") -> list[str]:
    """Return the sorted names of the presets in configs/ or one of its folders."""
    files = (resources.files("weft_rl.configs") / folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def _preset(key: str, name: str, folder: str = "") -> dict[str, Any]:
    """Return the values of the preset that the argument `key` names."""
    if name not in (names := preset_names(folder)):
        raise UserError(f"{key}={shown(name)}: unknown preset; use {', '.join(names)}")
    return _preset_values(f"{folder}{name}")


def _preset_values(path: str) -> dict[str, Any]:
    """Return the values of a preset file by full key, over those of the presets it builds on."""
    text = (resources.files("weft_rl.configs") / f"{path}.yaml").read_text(encoding="utf-8")
    tree, values = yaml.safe_load(text), {}
    for name in tree.pop("preset", []):
        values |= _preset_values(name)
    return values | dict(flattened(tree))


def _inherited(run: Path) -> dict[str, Any]:
    """Return the values of a run, over the preset of its model."""
    saved, options = read_config(run), leaves(RunConfig)
    own = saved.get("model")
    values = _preset_values(own if own in preset_names() else _DEFAULT_PRESET)
    for key, value in flattened(saved):
        if key in options and key.split(".")[0] not in _NOT_INHERITED:
            check_value(run / CONFIG, key, value, options[key])
            values[key] = value
    return values


def to_yaml(config: Any) -> str:
    """Format options as YAML in schema order; equal options give equal text."""
    # without escapes, PyYAML reads U+0085 as a space
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=False)


def _leave(text: str) -> NoReturn:
    sys.stdout.write(text)
    sys.stdout.flush()
    raise SystemExit(0)


def _resolved(
    schema: type[Options], pairs: dict[str, str | list[str]], layer: dict[str, Any]
) -> Options:
    """Build options from defaults, `layer`, then arguments. Raises UserError naming the key."""
    below, known = defaults(schema) | layer, leaves(schema)
    values = below | pairs
    for key in sorted(known.keys() - values.keys()):
        raise UserError(f"{key}: missing; write {key}=...")
    try:
        return build(schema, values)
    except BadOption as error:
        if not error.search:
            raise
        leaf = known[error.key]
        tries = near_values(leaf.kind, leaf.bounds, error.value)
        if get_origin(leaf.kind) is not Literal:
            usual = (below, defaults(schema))
            tries += [parse(leaf.kind, each[error.key]) for each in usual if error.key in each]
        fixes = _valid(schema, values, error.key, tries, pairs)
        raise UserError(f"{error}; try {shown(fixes[0])}" if fixes else str(error)) from error


def _valid(
    schema: type[Any],
    values: Mapping[str, Any],
    key: str,
    tries: Sequence[Any],
    given: Mapping[str, Any],
) -> list[Any]:
    """Return the first value that makes all options valid, as a list of at most one.

    The fallback is the first value that leaves only another given option invalid."""
    second = []
    for value in tries:
        try:
            build(schema, {**values, key: value})
        except BadOption as error:
            second += [value] if error.key in given and error.key != key else []
        else:
            return [value]
    return second[:1]


def _help(
    schema: type[Any],
    command: str,
    about: str,
    layer: dict[str, Any],
    positional: str | None = None,
    all_options: bool = True,
) -> str:
    """Return the help text: options with defaults, grouped by block; or the main ones of a run."""
    first = f"{positional.upper()} ... " if positional else ""
    lines = [f"usage: python -m {command} {first}key=value ...", "", about]
    values, main = defaults(schema) | layer, [] if all_options else _MAIN
    lines += _main_help(values) if main else _block_help(schema, values, "")
    lines += ["", "  --print-config  print the resolved options as YAML and exit"]
    lines += _RUN_FLAGS if schema is RunConfig else []
    lines += ["  --help          print this help and exit", ""]
    return "\n".join(lines)


def _main_help(values: Mapping[str, Any]) -> list[str]:
    known = leaves(RunConfig)
    lines = ["", *(_option_help(key, known[key], values) for key in _MAIN)]
    return [*lines, "", f"{len(known) - len(_MAIN)} more options: --help-all"]


def _option_help(key: str, leaf: Leaf, values: Mapping[str, Any]) -> str:
    default = shown(parse(leaf.kind, values[key])) if key in values else ""
    limits = rules(leaf.kind, leaf.bounds)
    text = leaf.item.metadata.get("help", "") + (f" ({limits})" if limits else "")
    return f"  {f'{key}={default}':<40}  {text}"


def _block_help(schema: type[Any], values: Mapping[str, Any], prefix: str) -> list[str]:
    about = (schema.__doc__ or "").partition("\n")[0]
    lines = ["", f"{prefix.rstrip('.')}: {about}"] if prefix else [""]
    nested = []
    for item in fields(schema):
        kind, key = kinds(schema)[item.name], prefix + item.name
        if is_dataclass(kind):
            nested += _block_help(kind, values, f"{key}.")
            continue
        lines.append(_option_help(key, Leaf(kind, item), values))
    return lines + nested
