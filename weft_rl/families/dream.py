"""Dream: Qwen2's network without a causal mask, whose logits at a place are for the next one."""

from typing import Any

from weft_rl.families.base import Config, Family, Sizes, Spec, number
from weft_rl.families.fields import COMMON, RATE, read_fields, refused, require_shapes, rotary

# Dream-7B's, Qwen2.5-7B's network. Source: the published configuration.
SEVEN_B = Sizes(152064, 3584, 28, 28, 4, 18944)
_UPSTREAM_FORM = {"architectures": ["DreamModel"]}
# Upstream's classes, in transformers' form for code of another repository. Source: the published
# configuration.
_CODE = "Dream-org/Dream-v0-Instruct-7B"
_REMOTE_CODE = {
    "AutoConfig": f"{_CODE}--configuration_dream.DreamConfig",
    "AutoModel": f"{_CODE}--modeling_dream.DreamModel",
}
_KINDS = COMMON | {"attention_dropout": RATE}
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "intermediate_size"),
)
# What a file may leave out: the defaults of upstream's class.
_DEFAULTS: dict[str, Any] = {
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "mask_token_id": 151666,
    "pad_token_id": 151643,
}
# What Qwen2's class has for windows, which upstream's code does not look at.
_IGNORED = ("sliding_window", "max_window_layers", "layer_types")


def fields(config: Config) -> dict[str, Any]:
    """The fields that matter, under transformers' names, from either layout's configuration.

    Scaled rotary positions are in `rope_scaling`. Raises UserError for fields of another network,
    and for missing ones."""
    for name in _SIZES:
        if name not in config:
            number({}, name)  # says that it is missing
    own = _DEFAULTS | read_fields(config, _KINDS, {"tie_word_embeddings": False}, {}, _IGNORED)
    own["rope_theta"], scaling = rotary(config, _DEFAULTS["rope_theta"])
    if scaling is not None:
        own["rope_scaling"] = scaling
    if config.get("layer_types") not in (None, ["full_attention"] * own["num_hidden_layers"]):
        raise refused("layer_types", config["layer_types"], "must all be full_attention")
    own.setdefault("num_key_value_heads", own["num_attention_heads"])
    tokens = ("mask_token_id", "eos_token_id", "pad_token_id")
    require_shapes(own, paired=True, tokens=tokens)
    return own


def sizes(config: Config) -> Sizes:
    """Dimensions from a config.json of either layout. Raises UserError as `fields` does."""
    own = fields(config)
    return Sizes(*(own[name] for name in _SIZES))


def tensors(sizes: Sizes) -> list[Spec]:
    """Every tensor of a checkpoint: 3 + 12 a layer, under Qwen2's names in both layouts."""
    width, inner, keys = sizes.hidden_size, sizes.intermediate_size, sizes.key_width
    block: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (width,),
        "self_attn.q_proj.weight": (width, width),
        "self_attn.q_proj.bias": (width,),
        "self_attn.k_proj.weight": (keys, width),
        "self_attn.k_proj.bias": (keys,),
        "self_attn.v_proj.weight": (keys, width),
        "self_attn.v_proj.bias": (keys,),
        "self_attn.o_proj.weight": (width, width),
        "post_attention_layernorm.weight": (width,),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
    }
    head = (sizes.vocab_size, width)
    named: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": head}
    for n in range(sizes.num_hidden_layers):
        named |= {f"model.layers.{n}.{name}": shape for name, shape in block.items()}
    named |= {"model.norm.weight": (width,), "lm_head.weight": head}
    return [Spec(name, name, shape) for name, shape in named.items()]


def to_plain(config: Config) -> dict[str, Any]:
    """A configuration for transformers' Qwen2 class with `is_causal` off; the shift stays the
    reader's."""
    own = fields(config)
    rope = own.pop("rope_scaling", {"rope_type": "default"}) | {"rope_theta": own.pop("rope_theta")}
    form = {"architectures": ["Qwen2ForCausalLM"], "is_causal": False, "tie_word_embeddings": False}
    return {**form, **own, "rope_parameters": rope}


def to_upstream(config: Config) -> dict[str, Any]:
    """A configuration under the published names."""
    return {**_UPSTREAM_FORM, "tie_word_embeddings": False, **fields(config)}


DREAM = Family(
    name="dream",
    model_types=("Dream", "dream"),
    plain_type="qwen2",
    network="weft_rl.models.modeling_dream:DreamForMaskedLM",
    sizes=sizes,
    tensors=tensors,
    to_plain=to_plain,
    to_upstream=to_upstream,
    published={"dream_7b": _CODE},
    published_sizes=SEVEN_B,
    mask_token="<|mask|>",
    end_of_turn="<|im_end|>",
    end_of_turn_id=151645,
    remote_code=_REMOTE_CODE,
    tokenizer="Qwen2Tokenizer",
    needs_generation_config=True,
)
