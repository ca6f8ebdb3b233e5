"""Dream: Qwen2 without a causal mask, whose output at a position predicts the next one."""

from typing import Any

from weft_rl.families.base import SIZE_FIELDS, Config, Family, Sizes, Spec
from weft_rl.families.fields import (
    COMMON,
    RATE,
    check_shapes,
    missing,
    read_fields,
    refused,
    rotary,
)

# Dream-7B and Qwen2.5-7B. Source: the published configuration.
SEVEN_B = Sizes(152064, 3584, 28, 28, 4, 18944)
# Upstream's classes in transformers' auto_map syntax. Source: the published configuration.
_CODE = "Dream-org/Dream-v0-Instruct-7B"
_REMOTE_CODE = {
    "AutoConfig": f"{_CODE}--configuration_dream.DreamConfig",
    "AutoModel": f"{_CODE}--modeling_dream.DreamModel",
}
_KINDS = COMMON | {"attention_dropout": RATE}
_DEFAULTS: dict[str, Any] = {
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "mask_token_id": 151666,
    "pad_token_id": 151643,
}
# Qwen2's sliding-window options, which upstream's code does not read.
_IGNORED = ("sliding_window", "max_window_layers", "layer_types")


def fields(config: Config) -> dict[str, Any]:
    """Return the network's fields under transformers' names, from either layout, or raise
    UserError."""
    for name in SIZE_FIELDS:
        if name not in config:
            raise missing(name)
    values = _DEFAULTS | read_fields(config, _KINDS, {"tie_word_embeddings": False}, {}, _IGNORED)
    values["rope_theta"], scaling = rotary(config, _DEFAULTS["rope_theta"])
    if scaling is not None:
        values["rope_scaling"] = scaling
    if config.get("layer_types") not in (None, ["full_attention"] * values["num_hidden_layers"]):
        raise refused("layer_types", config["layer_types"], "must all be full_attention")
    values.setdefault("num_key_value_heads", values["num_attention_heads"])
    tokens = ("mask_token_id", "eos_token_id", "pad_token_id")
    check_shapes(values, paired=True, tokens=tokens)
    return values


def sizes(config: Config) -> Sizes:
    """Return the dimensions of a config.json of either layout. Raises UserError as `fields`."""
    values = fields(config)
    return Sizes(*(values[name] for name in SIZE_FIELDS))


def tensors(sizes: Sizes) -> list[Spec]:
    """List the tensors of a checkpoint, 3 + 12 per layer, under Qwen2's names in both layouts."""
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
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": head}
    for n in range(sizes.num_hidden_layers):
        shapes |= {f"model.layers.{n}.{name}": shape for name, shape in block.items()}
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": head}
    return [Spec(name, name, shape) for name, shape in shapes.items()]


def to_transformers(config: Config) -> dict[str, Any]:
    """Return a configuration for Qwen2's class with `is_causal` off; its reader shifts logits."""
    values = fields(config)
    rope = values.pop("rope_scaling", {"rope_type": "default"})
    return {
        **{"architectures": ["Qwen2ForCausalLM"], "is_causal": False, "tie_word_embeddings": False},
        "rope_parameters": rope | {"rope_theta": values.pop("rope_theta")},
        **values,
    }


def to_upstream(config: Config) -> dict[str, Any]:
    """Return a configuration under the published names."""
    return {"architectures": ["DreamModel"], "tie_word_embeddings": False, **fields(config)}


DREAM = Family(
    name="dream",
    model_types=("Dream", "dream"),
    transformers_type="qwen2",
    network="weft_rl.models.modeling_dream:DreamForMaskedLM",
    sizes=sizes,
    tensors=tensors,
    to_transformers=to_transformers,
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
