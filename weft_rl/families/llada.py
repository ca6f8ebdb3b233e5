"""LLaDA and LLaDA-1.5: Llama without a causal mask, under different names."""

from typing import Any

from weft_rl.families import fields as config_fields
from weft_rl.families.base import SIZE_FIELDS, Config, Family, Sizes, Spec
from weft_rl.families.fields import COMMON, COUNT, FLAG, refused

# Published name -> Llama's, in a block. `ff_proj` is the gate; the head is `ff_out` too.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_norm": "post_attention_layernorm",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
_FIELDS: dict[str, str] = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "mlp_hidden_size": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
    "activation_type": "hidden_act",
}
KINDS = COMMON | {"rope": FLAG, "embedding_size": COUNT}
_LLADA_ONLY = ("rope", "rope_theta", "embedding_size", "initializer_range", "head_dim")
# Required in a published file: the defaults of its class are another model's.
_REQUIRED = (
    *(name for name in _FIELDS if name != "n_kv_heads"),
    *("vocab_size", "mask_token_id", "eos_token_id", "pad_token_id"),
)

# LLaDA-8B and LLaDA-1.5. Source: the published configuration.
EIGHT_B = Sizes(126464, 4096, 32, 32, 32, 12288)
# Upstream's classes in transformers' auto_map syntax. Source: the published configuration.
_CODE = "GSAI-ML/LLaDA-8B-Instruct"
_REMOTE_CODE = {
    "AutoConfig": f"{_CODE}--configuration_llada.LLaDAConfig",
    "AutoModel": f"{_CODE}--modeling_llada.LLaDAModelLM",
    "AutoModelForCausalLM": f"{_CODE}--modeling_llada.LLaDAModelLM",
}
# Optional generation prompt: upstream's always appends one, which fine-tuning then learns to write.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# transformers omits defaults (LLaDA-8B's) from a saved configuration.
_DEFAULTS: dict[str, Any] = {
    **{name: getattr(EIGHT_B, name) for name in SIZE_FIELDS if name != "num_key_value_heads"},
    "max_position_embeddings": 4096,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "mask_token_id": 126336,
    "bos_token_id": 126080,
    "eos_token_id": 126081,
    "eot_token_id": 126348,
    "pad_token_id": 126081,
}
# Upstream options with their only supported value; exported too, as its dropout defaults to 0.1.
_OFF = (
    *("alibi", "attention_layer_norm", "bias_for_layer_norm", "include_bias", "include_qkv_bias"),
    *("input_emb_norm", "multi_query_attention", "scale_logits", "weight_tying"),
)
FIXED: dict[str, Any] = {
    **dict.fromkeys(_OFF, False),
    **dict.fromkeys(("attention_dropout", "embedding_dropout", "residual_dropout"), 0.0),
    **{"block_group_size": 1, "block_type": "llama", "layer_norm_type": "rms"},
    **{"layer_norm_with_affine": True, "rope_full_precision": True},
}
_IGNORED = ("alibi_bias_max", "attention_layer_norm_with_affine", "tie_word_embeddings")


def fields(config: Config) -> dict[str, Any]:
    """Return the network's fields under transformers' names, from either layout, or raise
    UserError."""
    is_published, is_llama = "d_model" in config, config.get("model_type") == "llama"
    required = _REQUIRED if is_published else ()
    if is_llama:
        # Llama's class and upstream's have different rms_norm_eps defaults
        required = (*(_FIELDS.get(name, name) for name in _REQUIRED), "rms_norm_eps")
    for name in required:
        if config.get(name) is None:
            raise config_fields.missing(name)
    # upstream's class ties the embeddings by `weight_tying` alone
    tied = {} if "weight_tying" in config else {"tie_word_embeddings": False}
    values = config_fields.read_fields(config, KINDS, FIXED | tied, _FIELDS, _IGNORED)
    defaults = {"rms_norm_eps": _DEFAULTS["rms_norm_eps"]} if required else _DEFAULTS
    values = {"rope": True, **defaults, **values}
    theta = None if values["rope"] and required else _DEFAULTS["rope_theta"]
    values["rope_theta"], scaling = config_fields.rotary(config, theta)
    if scaling is not None:
        name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
        raise refused(name, config[name], "must be None; no other form is implemented")
    heads, rows = values["num_attention_heads"], values["vocab_size"]
    if values.setdefault("num_key_value_heads", heads) != heads:
        name = "n_kv_heads" if "n_kv_heads" in config else "num_key_value_heads"
        raise refused(name, config[name], f"must be {heads}, one for each attention head")
    if values.setdefault("embedding_size", rows) != rows:
        raise refused("embedding_size", values["embedding_size"], f"must be vocab_size={rows}")
    tokens = ("mask_token_id", "eos_token_id")
    config_fields.check_shapes(values, paired=values["rope"], tokens=tokens)
    return values


def sizes(config: Config) -> Sizes:
    """Return the dimensions of a config.json of either layout. Raises UserError as `fields`."""
    values = fields(config)
    learned_positions = 0 if values["rope"] else values["max_position_embeddings"]
    return Sizes(*(values[name] for name in SIZE_FIELDS), learned_positions)


def tensors(sizes: Sizes) -> list[Spec]:
    """List the tensors of a checkpoint: 3 + 9 per layer, and any learned position table."""
    width, inner = sizes.hidden_size, sizes.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,),
        "q_proj": (width, width),
        "k_proj": (sizes.key_width, width),
        "v_proj": (sizes.key_width, width),
        "attn_out": (width, width),
        "ff_norm": (width,),
        "ff_proj": (inner, width),
        "up_proj": (inner, width),
        "ff_out": (width, inner),
    }
    top, head = "model.transformer.", (sizes.vocab_size, width)
    specs = [Spec(f"{top}wte.weight", "model.embed_tokens.weight", head)]
    if sizes.learned_positions:
        table = (sizes.learned_positions, width)
        specs.append(Spec(f"{top}wpe.weight", "model.embed_positions.weight", table))
    for n in range(sizes.num_hidden_layers):
        specs += [
            Spec(f"{top}blocks.{n}.{name}.weight", f"model.layers.{n}.{llama}.weight", shapes[name])
            for name, llama in _BLOCK.items()
        ]
    specs.append(Spec(f"{top}ln_f.weight", "model.norm.weight", (width,)))
    return [*specs, Spec(f"{top}ff_out.weight", "lm_head.weight", head)]


def to_transformers(config: Config) -> dict[str, Any]:
    """Return a configuration for Llama's class with `is_causal` off, which is LLaDA."""
    values = fields(config)
    return {
        "architectures": ["LlamaForCausalLM"],
        "is_causal": False,
        **{name: value for name, value in values.items() if name not in _LLADA_ONLY},
        "rope_parameters": {"rope_type": "default", "rope_theta": values["rope_theta"]},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": False,
    }


def to_upstream(config: Config) -> dict[str, Any]:
    """Return a configuration under the published names."""
    upstream, values = {name: alias for alias, name in _FIELDS.items()}, fields(config)
    return {
        "architectures": ["LLaDAModelLM"],
        **FIXED,
        **{upstream.get(name, name): values[name] for name in values if name not in _LLADA_ONLY},
        **{name: values[name] for name in ("rope", "rope_theta", "embedding_size")},
    }


LLADA = Family(
    name="llada",
    model_types=("llada",),
    transformers_type="llama",
    network="weft_rl.models.modeling_llada:LLaDAForMaskedLM",
    sizes=sizes,
    tensors=tensors,
    to_transformers=to_transformers,
    to_upstream=to_upstream,
    published={"llada_8b": _CODE, "llada_1_5": "GSAI-ML/LLaDA-1.5"},
    published_sizes=EIGHT_B,
    mask_token="<|mdm_mask|>",
    end_of_turn="<|eot_id|>",
    end_of_turn_id=_DEFAULTS["eot_token_id"],
    remote_code=_REMOTE_CODE,
    chat_template=CHAT_TEMPLATE,
)
