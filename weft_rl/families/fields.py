"""Fields of a config.json: types, aliases, and unsupported options, checked before any loading."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number


class Kind(NamedTuple):
    """A value type: its description for messages, and its test."""

    rule: str
    fits: Callable[[Any], bool]
    allows_null: bool = False  # null: as if absent


def _is_int(value: Any, minimum: int = 0, maximum: float = float("inf")) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


_ACTIVATIONS = ("gelu", "relu", "silu")
# Far above any network: a damaged number would create the names of all its tensors.
_MAX_LAYERS = 1000
COUNT = Kind("must be a positive whole number", lambda value: _is_int(value, 1))
OPTIONAL_COUNT = COUNT._replace(allows_null=True)
RATE = Kind("must be a number >= 0 and < 1", lambda value: is_number(value) and 0 <= value < 1)
FLAG = Kind("must be true or false", lambda value: isinstance(value, bool))
_POSITIVE = Kind("must be a positive number", lambda value: is_number(value) and value > 0)
_OPTIONAL_TOKEN = Kind("must be a token id or null", lambda v: v is None or _is_int(v))

COMMON: dict[str, Kind] = {
    **dict.fromkeys(("vocab_size", "hidden_size", "num_attention_heads"), COUNT),
    **dict.fromkeys(("intermediate_size", "max_position_embeddings"), COUNT),
    **dict.fromkeys(("num_key_value_heads", "head_dim"), OPTIONAL_COUNT),
    "num_hidden_layers": Kind(
        f"must be a positive whole number, at most {_MAX_LAYERS}",
        lambda value: _is_int(value, 1, _MAX_LAYERS),
    ),
    "hidden_act": Kind(
        f"must be one of {', '.join(_ACTIVATIONS)}",
        lambda value: isinstance(value, str) and value in _ACTIVATIONS,
    ),
    "rope_theta": _POSITIVE._replace(allows_null=True),
    "rms_norm_eps": _POSITIVE,
    "initializer_range": Kind(
        "must be a number >= 0", lambda value: is_number(value) and value >= 0, allows_null=True
    ),
    "mask_token_id": Kind("must be a token id", _is_int),
    "eos_token_id": Kind(
        "must be a token id or a list of token ids",
        lambda v: bool(v) and all(map(_is_int, v)) if isinstance(v, list) else _is_int(v),
    ),
    **dict.fromkeys(("bos_token_id", "eot_token_id", "pad_token_id"), _OPTIONAL_TOKEN),
}
# Options of every family with the one supported value.
_FIXED: dict[str, Any] = {
    "attention_bias": False,
    "is_causal": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "quantization_config": None,
    "use_sliding_window": False,
}
_TYING = "tie_word_embeddings"
_CHECKED_ELSEWHERE = (_TYING, "rope_scaling", "rope_parameters")
_DTYPES = ("float64", "float32", "bfloat16", "float16")
# Words in option names that change the network; other unknown options have no effect.
_WORDS = (
    *("alibi", "bias", "causal", "conv", "dropout", "expert", "gated", "longrope", "mamba", "moe"),
    *("mixture", "multiplier", "mup", "norm", "ntk", "quant", "quantization", "quantized", "yarn"),
    *("residual", "rope", "rotary", "router", "scalar", "scale", "scaling", "sliding", "softcap"),
    *("softcapping", "sparse", "ssm", "tie", "tied", "tying", "window", "xpos"),
)
_CHANGES = re.compile(rf"(?:^|_)(?:{'|'.join(_WORDS)})s?(?=$|_|\d)", re.IGNORECASE)
# Exceptions: options of kernels, initialization and training, and numerical floors.
_HARMLESS = re.compile(
    r"flash|sdpa|xformers|kernel|fused|triton|liger|backend|impl|checkpoint|init|loss|label|_eps",
    re.IGNORECASE,
)
# Supported rotary scalings: required and optional keys.
_LENGTH = "original_max_position_embeddings"
_SCALINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), (_LENGTH,)),
    "yarn": (("factor",), (_LENGTH, "attention_factor", "beta_fast", "beta_slow")),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", _LENGTH), ()),
}
_ONLY = "no other form is implemented"


def refused(name: str, value: Any, rule: str) -> UserError:
    """Return the error for a field of a config.json."""
    return UserError(f"config.json: {name}={value!r}: {rule}")


def missing(name: str) -> UserError:
    """Return the error for a missing field of a config.json."""
    return UserError(f"config.json: {name} is missing; copy the published file")


def read_fields(
    config: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    fixed: Mapping[str, Any],
    aliases: Mapping[str, str],
    ignored: Collection[str],
) -> dict[str, Any]:
    """Return the fields of a configuration that are in `kinds`, under transformers' names.

    fixed: options with their only supported value, also for null. aliases: transformers' names by
    the file's. ignored: options without effect. Raises UserError for unsupported values."""
    fixed = _FIXED | dict(fixed)
    # upstream's LLaDA ties the embeddings by `weight_tying` alone
    free = _TYING in kinds or ("weight_tying" in fixed and "weight_tying" in config)
    ties = {} if free else {_TYING: False}
    for name, value in (fixed | ties).items():
        if config.get(name) not in (None, value):
            raise refused(name, config[name], f"must be {value!r}; {_ONLY}")
    known = {*fixed, *ignored, *_CHECKED_ELSEWHERE}
    fields: dict[str, Any] = {}
    for name, value in config.items():
        field = aliases.get(name, name)
        if field not in kinds:
            changes = _CHANGES.search(name) and not _HARMLESS.search(name)
            if value and name not in known and changes:
                raise refused(
                    name, value, "not implemented; remove it if the weights do not use it"
                )
        elif value is not None or not kinds[field].allows_null:
            if not kinds[field].fits(value):
                raise refused(name, value, kinds[field].rule)
            if fields.setdefault(field, value) != value:
                raise refused(name, value, f"must equal {field}={fields[field]!r}")
    return fields


def metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the readable fields of a configuration that do not define the network."""
    types = {"architectures": list, "auto_map": dict, "transformers_version": str, "dtype": str}
    dtype = str(config.get("dtype", config.get("torch_dtype"))).removeprefix("torch.")
    values = dict(config) | {"dtype": dtype if dtype in _DTYPES else None}
    return {
        name: values[name] for name, kind in types.items() if isinstance(values.get(name), kind)
    }


def check_shapes(
    fields: Mapping[str, Any], *, paired: bool, tokens: Iterable[str], any_head_dim: bool = False
) -> None:
    """Raise UserError for heads that do not divide the width, and for tokens >= vocab_size.

    paired: rotary positions, which need an even head width. tokens: names of token fields.
    any_head_dim: whether a head may have another width than its share."""
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    unit, key_heads = heads * (2 if paired else 1), fields["num_key_value_heads"]
    own = fields.get("head_dim") if any_head_dim else None
    if own is not None and own % 2:
        raise refused("head_dim", own, "must be even")
    if own is None and width % unit:
        raise refused("hidden_size", width, f"must be a multiple of {unit} (attention heads)")
    if heads % key_heads:
        raise refused("num_key_value_heads", key_heads, f"must divide num_attention_heads={heads}")
    if own is None and fields.get("head_dim", width // heads) != width // heads:
        raise refused("head_dim", fields["head_dim"], f"must be {width // heads}")
    for name in tokens:
        ids = fields.get(name)
        for token in ids if isinstance(ids, list) else [ids]:
            if token is not None and token >= fields["vocab_size"]:
                raise refused(name, ids, f"must be less than vocab_size={fields['vocab_size']}")


def rotary(
    config: Mapping[str, Any], default: float | None, *, is_scaled: bool
) -> tuple[float, dict[str, Any] | None]:
    """Return the base of rotary positions and their scaling, or None without scaling.

    Reads transformers 5's `rope_parameters`, or `rope_theta` and `rope_scaling`. default: base if
    the file has none; None: required. Raises UserError for unsupported or conflicting values."""
    bases, scalings = {"rope_theta": config.get("rope_theta")}, []
    for name in ("rope_scaling", "rope_parameters"):
        block = config.get(name)
        if block is None:
            continue
        if not isinstance(block, dict):
            raise refused(name, block, "must be an object or null")
        bases[f"{name}.rope_theta"] = block.get("rope_theta")
        scalings.append(_scaling(name, block))
        if scalings[-1] is not None and not is_scaled:
            raise refused(name, block, f"must be null; {_ONLY}")
        if scalings[0] != scalings[-1]:
            raise refused(name, block, "must equal rope_scaling")
    bases = {name: base for name, base in bases.items() if base is not None}
    base = next(iter(bases.values()), default)
    if base is None:
        raise missing("rope_theta")
    for name, value in bases.items():
        if not _POSITIVE.fits(value):
            raise refused(name, value, _POSITIVE.rule)
        if value != base:
            raise refused(name, value, f"must be {base!r}, the other base of this file")
    return float(base), scalings[0] if scalings else None


def _scaling(name: str, block: Mapping[str, Any]) -> dict[str, Any] | None:
    options = {key: value for key, value in block.items() if value is not None}
    options.pop("rope_theta", None)
    kind = options.pop("rope_type", options.get("type", "default"))
    if options.pop("type", kind) != kind or not isinstance(kind, str) or kind not in _SCALINGS:
        raise refused(name, block, f"its type must be one of {', '.join(_SCALINGS)}")
    if options.get("partial_rotary_factor") == 1:
        del options["partial_rotary_factor"]
    required, optional = _SCALINGS[kind]
    for key in required:
        if key not in options:
            raise refused(name, block, f"{key} is missing")
    for key, value in options.items():
        if key not in (*required, *optional):
            raise refused(name, block, f"{key} is not an option of {kind} positions")
        if not _POSITIVE.fits(value):
            raise refused(f"{name}.{key}", value, _POSITIVE.rule)
    return None if kind == "default" else {"rope_type": kind, **options}
