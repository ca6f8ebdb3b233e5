"""Fields of a config.json: their types, their other names, and options of networks not built here.

Loading, converting and planning all read a configuration through a family's `fields`, which are
made here: what is not understood is named before anything is loaded."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from weft_rl.errors import UserError


class Kind(NamedTuple):
    """A type of values: its rule in words, and whether a value keeps to it."""

    rule: str
    fits: Callable[[Any], bool]


def _is_whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_token(value: Any) -> bool:
    return _is_whole(value, 0)


def _is_ending(value: Any) -> bool:
    tokens = value if isinstance(value, list) else [value]
    return bool(tokens) and all(map(_is_token, tokens))


def one_of(values: Collection[str]) -> Kind:
    """Texts out of a few."""
    rule = f"must be one of {', '.join(sorted(values))}"
    return Kind(rule, lambda value: isinstance(value, str) and value in values)


WHOLE = Kind("must be a positive whole number", _is_whole)
POSITIVE = Kind("must be a positive number", _is_positive)
RATE = Kind("must be a number from 0, below 1", lambda value: _is_number(value) and 0 <= value < 1)
SPREAD = Kind("must be a number from 0", lambda value: _is_number(value) and value >= 0)
FLAG = Kind("must be true or false", lambda value: isinstance(value, bool))
TOKEN = Kind("must be a token's id", _is_token)
OPTIONAL_TOKEN = Kind("must be a token's id, or null", lambda v: v is None or _is_token(v))
ENDING = Kind("must be a token's id, or a list of them", _is_ending)
ACTIVATION = one_of(("gelu", "relu", "silu"))

# Fields of every family, under transformers' names.
COMMON: dict[str, Kind] = {
    "vocab_size": WHOLE,
    "hidden_size": WHOLE,
    "num_hidden_layers": WHOLE,
    "num_attention_heads": WHOLE,
    "num_key_value_heads": WHOLE,
    "intermediate_size": WHOLE,
    "max_position_embeddings": WHOLE,
    "hidden_act": ACTIVATION,
    "rope_theta": POSITIVE,
    "rms_norm_eps": POSITIVE,
    "initializer_range": SPREAD,
    "mask_token_id": TOKEN,
    "bos_token_id": OPTIONAL_TOKEN,
    "eos_token_id": ENDING,
    "eot_token_id": OPTIONAL_TOKEN,
    "pad_token_id": OPTIONAL_TOKEN,
    "head_dim": WHOLE,
}
# Null in a file means the default, or that there is none; of others a null is a mistake.
_NULLABLE = (
    *("num_key_value_heads", "initializer_range", "head_dim", "embedding_size", "rope_theta"),
)
# Options of every family's classes of which one form is built.
_FIXED: dict[str, Any] = {
    "attention_bias": False,
    "is_causal": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "quantization_config": None,
    "use_sliding_window": False,
}
# Of weights, by the names in a config.json.
_DTYPES = ("float64", "float32", "bfloat16", "float16")
# Words in the names of options that make another network. An option that no class here has is
# refused for them, and harmless otherwise.
_WORDS = (
    *("alibi", "bias", "causal", "conv", "dropout", "expert", "gated", "longrope", "mamba", "moe"),
    *("mixture", "multiplier", "mup", "norm", "ntk", "quant", "quantization", "quantized", "yarn"),
    *("residual", "rope", "rotary", "router", "scalar", "scale", "scaling", "sliding", "softcap"),
    *("softcapping", "sparse", "ssm", "tie", "tied", "tying", "window", "xpos"),
)
_CHANGES = re.compile(rf"(?:^|_)(?:{'|'.join(_WORDS)})s?(?=$|_|\d)", re.IGNORECASE)
# ... unless they are of how it is computed, initialised or trained, or a floor that none here has.
_HARMLESS = re.compile(
    r"flash|sdpa|xformers|kernel|fused|triton|liger|backend|impl|checkpoint|init|loss|label|_eps",
    re.IGNORECASE,
)


def refused(name: str, value: Any, rule: str) -> UserError:
    """The error for a field of a config.json."""
    return UserError(f"config.json: {name}={value!r}: {rule}")


def read_fields(
    config: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    fixed: Mapping[str, Any],
    aliases: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """The fields of these kinds that a configuration has, under transformers' names.

    fixed: options with the one value that is built; null is that value as well. aliases:
    transformers' names by a file's. ignored: options that change nothing. Raises UserError for a
    field that is not of its kind, for two names with different values, and for options that make
    another network."""
    names, one_form = aliases or {}, _FIXED | dict(fixed)
    for name, value in one_form.items():
        if config.get(name) not in (None, value):
            raise refused(name, config[name], f"must be {value!r}, no other form is built")
    known = {*one_form, *ignored, "rope_scaling", "rope_parameters"}
    fields: dict[str, Any] = {}
    for name, value in config.items():
        field = names.get(name, name)
        if field not in kinds:
            other = name not in known and _CHANGES.search(name) and not _HARMLESS.search(name)
            if value and other:
                rule = "no such option is built; remove it if the weights are of a network without"
                raise refused(name, value, rule)
        elif value is not None or field not in _NULLABLE:
            if not kinds[field].fits(value):
                raise refused(name, value, kinds[field].rule)
            if fields.get(field, value) != value:
                raise refused(name, value, f"must be {fields[field]!r}, as {field} is")
            fields[field] = value
    return fields


def described(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says that no network is built of, as far as it can be read."""
    kept: dict[str, Any] = {}
    for name, kind in (("architectures", list), ("auto_map", dict), ("transformers_version", str)):
        if isinstance(config.get(name), kind):
            kept[name] = config[name]
    dtype = config.get("dtype", config.get("torch_dtype"))
    dtype = dtype.removeprefix("torch.") if isinstance(dtype, str) else None
    return kept | ({"dtype": dtype} if dtype in _DTYPES else {})


def require_shapes(fields: Mapping[str, Any], *, paired: bool, tokens: Collection[str]) -> None:
    """Raise UserError for heads that do not divide the width, and tokens beyond the vocabulary.

    paired: rotary positions, which turn pairs of dimensions; tokens: names of fields."""
    width, heads, rows = (
        fields[name] for name in ("hidden_size", "num_attention_heads", "vocab_size")
    )
    unit = heads * (2 if paired else 1)
    if width % unit:
        rule = f"must be a multiple of {unit}: num_attention_heads={heads}"
        raise refused("hidden_size", width, rule + ", in pairs" * paired)
    keys = fields.get("num_key_value_heads", heads)
    if heads % keys:
        raise refused("num_key_value_heads", keys, f"must divide num_attention_heads={heads}")
    if fields.get("head_dim", width // heads) != width // heads:
        raise refused("head_dim", fields["head_dim"], f"must be {width // heads}")
    for name in tokens:
        value = fields.get(name)
        listed = value if isinstance(value, list) else [value]
        if any(token is not None and token >= rows for token in listed):
            raise refused(name, value, f"must be less than vocab_size={rows}")


# Kinds of scaled rotary positions that transformers computes as upstream's code does: what each
# must have, and what it may.
_SCALED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ("original_max_position_embeddings",)),
    "yarn": (
        ("factor",),
        ("original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
    ),
    "llama3": (
        (
            *("factor", "low_freq_factor", "high_freq_factor"),
            "original_max_position_embeddings",
        ),
        (),
    ),
}


def rotary(config: Mapping[str, Any], default: float | None) -> tuple[float, dict[str, Any] | None]:
    """The base of rotary positions, and their scaling, None for none, from either layout.

    transformers 5 has both in `rope_parameters`, others have `rope_theta` and `rope_scaling`.
    default: the base where a file has none; None: it must have one. Raises UserError for scalings
    that are not built and for two bases."""
    bases = {name: config[name] for name in ("rope_theta",) if config.get(name) is not None}
    scalings = []
    for name in ("rope_scaling", "rope_parameters"):
        content = config.get(name)
        if content is None:
            continue
        if not isinstance(content, dict):
            raise refused(name, content, "must be an object, or null")
        if content.get("rope_theta") is not None:
            bases[f"{name}.rope_theta"] = content["rope_theta"]
        scalings.append(_scaling(name, content))
    for name, value in bases.items():
        if not _is_positive(value):
            raise refused(name, value, POSITIVE.rule)
        if value != next(iter(bases.values())):
            raise refused(name, value, f"must be {next(iter(bases.values()))!r}, as the other is")
    base = next(iter(bases.values()), default)
    if base is None:
        raise UserError("config.json: rope_theta is missing; copy the published file")
    if len(scalings) == 2 and scalings[0] != scalings[1]:
        raise refused("rope_parameters", config["rope_parameters"], "must be as rope_scaling is")
    return float(base), scalings[0] if scalings else None


def _scaling(name: str, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """A scaling as transformers reads it, its type under one name; None for none."""
    own = {key: value for key, value in content.items() if value is not None}
    own.pop("rope_theta", None)
    kind = own.pop("rope_type", own.get("type", "default"))
    if own.pop("type", kind) != kind or not isinstance(kind, str) or kind not in _SCALED:
        raise refused(name, content, f"its type must be one of {', '.join(_SCALED)}")
    if own.get("partial_rotary_factor") == 1:
        del own["partial_rotary_factor"]
    needed, possible = _SCALED[kind]
    for key in needed:
        if key not in own:
            raise refused(name, content, f"{key} is missing")
    for key, value in own.items():
        if key not in (*needed, *possible):
            raise refused(name, content, f"{key} is no option of {kind} positions here")
        if not _is_positive(value):
            raise refused(f"{name}.{key}", value, POSITIVE.rule)
    return None if kind == "default" else {"rope_type": kind, **own}
