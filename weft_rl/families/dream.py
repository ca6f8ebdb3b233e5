"""Dream: Qwen2's network without a causal mask, whose logits at a place are for the next one."""

from typing import Any

from weft_rl.families.family import Config, Family, Sizes, Spec, number

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
_LEFT_OUT = ("auto_map", "transformers_version", "rope_parameters", "is_causal")


def sizes(config: Config) -> Sizes:
    """Dimensions from a config.json of either layout. Raises UserError for missing fields."""
    names = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "intermediate_size"),
    )
    return Sizes(*(number(config, name) for name in names))


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
    fields = {name: value for name, value in config.items() if name not in _LEFT_OUT}
    theta = fields.pop("rope_theta", None) or config["rope_parameters"]["rope_theta"]
    form = {"architectures": ["Qwen2ForCausalLM"], "is_causal": False}
    rope = {"rope_type": "default", "rope_theta": theta}
    return {**fields, **form, "rope_parameters": rope}


def to_upstream(config: Config) -> dict[str, Any]:
    """A configuration under the published names."""
    fields = {name: value for name, value in config.items() if name not in _LEFT_OUT}
    theta = fields.pop("rope_theta", None) or config["rope_parameters"]["rope_theta"]
    return {**fields, **_UPSTREAM_FORM, "rope_theta": theta}


DREAM = Family(
    name="dream",
    model_types=("Dream", "dream"),
    plain_type="qwen2",
    network="weft_rl.models.dream:DreamForMaskedLM",
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
)
