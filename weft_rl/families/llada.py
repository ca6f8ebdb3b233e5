"""LLaDA and LLaDA-1.5: a Llama-shaped network without a causal mask, under names of its own."""

from typing import Any

from weft_rl.families.base import Config, Family, Sizes, Spec, number
from weft_rl.families.fields import (
    COMMON,
    FLAG,
    WHOLE,
    read_fields,
    refused,
    require_shapes,
    rotary,
)

# Published name -> Llama's, inside a block. The feed-forward layer's `ff_proj` is the gate, and
# `ff_out` is used twice upstream: here for the way down, at the top for the vocabulary head.
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
# Published field -> transformers' name.
_FIELDS: dict[str, str] = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "mlp_hidden_size": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
    "activation_type": "hidden_act",
}
_KINDS = COMMON | {"rope": FLAG, "embedding_size": WHOLE}
# What no other layout has a place for.
_OWN = ("rope", "rope_theta", "embedding_size", "initializer_range", "head_dim")
# What a published file must say itself: its own class would fall back on another model's values.
_REQUIRED = (
    *(name for name in _FIELDS if name != "n_kv_heads"),
    *("vocab_size", "mask_token_id", "eos_token_id", "pad_token_id"),
)

# LLaDA-8B's, and LLaDA-1.5's. Source: the published configuration.
EIGHT_B = Sizes(126464, 4096, 32, 32, 32, 12288)
# Upstream's classes, in transformers' form for code of another repository. Source: the published
# configuration.
_CODE = "GSAI-ML/LLaDA-8B-Instruct"
_REMOTE_CODE = {
    "AutoConfig": f"{_CODE}--configuration_llada.LLaDAConfig",
    "AutoModel": f"{_CODE}--modeling_llada.LLaDAModelLM",
    "AutoModelForCausalLM": f"{_CODE}--modeling_llada.LLaDAModelLM",
}
# LLaDA's form, but the assistant header only where it is asked for: upstream's template appends
# one after every conversation, and fine-tuning then learns to write it.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# What a configuration saved by transformers leaves out: this class's defaults, LLaDA-8B's.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": EIGHT_B.vocab_size,
    "hidden_size": EIGHT_B.hidden_size,
    "num_hidden_layers": EIGHT_B.num_hidden_layers,
    "num_attention_heads": EIGHT_B.num_attention_heads,
    "intermediate_size": EIGHT_B.intermediate_size,
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
# Options of upstream's class that no other form is built of here; null is its default as well. Its
# class's own default for dropout is 0.1: a missing key turns dropout on.
FIXED: dict[str, Any] = {
    "alibi": False,
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "embedding_dropout": 0.0,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "multi_query_attention": False,
    "residual_dropout": 0.0,
    "rope_full_precision": True,
    "scale_logits": False,
    "weight_tying": False,
}
# What upstream's class has for forms that are not built.
_IGNORED = ("alibi_bias_max", "attention_layer_norm_with_affine", "tie_word_embeddings")
_UPSTREAM_FORM = {"architectures": ["LLaDAModelLM"]}


def fields(config: Config) -> dict[str, Any]:
    """The fields that matter, under transformers' names, from either layout's configuration.

    Raises UserError for those of another network, and for missing ones of a published file."""
    # upstream's class ties by its own option alone
    tied = {} if "weight_tying" in config else {"tie_word_embeddings": False}
    is_published, is_plain = "d_model" in config, config.get("model_type") == "llama"
    # Llama's class has another default than upstream's for the norms' floor
    needed = (*_REQUIRED, *(["rms_norm_eps"] if is_plain else []))
    for name in needed if is_published or is_plain else ():
        name = name if is_published else _FIELDS.get(name, name)
        if config.get(name) is None:
            number({}, name)  # says that it is missing
    own = read_fields(config, _KINDS, FIXED | tied, _FIELDS, _IGNORED)
    if not (is_published or is_plain):
        own = _DEFAULTS | own
    own = {"rope": True, "rms_norm_eps": _DEFAULTS["rms_norm_eps"], **own}
    theta = None if own["rope"] and (is_published or is_plain) else _DEFAULTS["rope_theta"]
    own["rope_theta"], scaling = rotary(config, theta)
    if scaling is not None:
        name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
        raise refused(name, config[name], "must be None, no other form is built")
    heads, rows = own["num_attention_heads"], own["vocab_size"]
    if own.setdefault("num_key_value_heads", heads) != heads:
        name = "n_kv_heads" if "n_kv_heads" in config else "num_key_value_heads"
        raise refused(name, config[name], f"must be {heads}, one for each attention head")
    if own.setdefault("embedding_size", rows) != rows:
        raise refused("embedding_size", own["embedding_size"], f"must be vocab_size={rows}")
    require_shapes(own, paired=own["rope"], tokens=("mask_token_id", "eos_token_id"))
    return own


def sizes(config: Config) -> Sizes:
    """Dimensions from a config.json of either layout. Raises UserError as `fields` does."""
    own = fields(config)
    names = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "intermediate_size"),
    )
    positions = 0 if own["rope"] else own["max_position_embeddings"]
    return Sizes(*(own[name] for name in names), positions)


def tensors(sizes: Sizes) -> list[Spec]:
    """Every tensor of a checkpoint: 3 + 9 a layer, and a table where positions are learned."""
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
            Spec(f"{top}blocks.{n}.{name}.weight", f"model.layers.{n}.{plain}.weight", shapes[name])
            for name, plain in _BLOCK.items()
        ]
    specs.append(Spec(f"{top}ln_f.weight", "model.norm.weight", (width,)))
    return [*specs, Spec(f"{top}ff_out.weight", "lm_head.weight", head)]


def to_plain(config: Config) -> dict[str, Any]:
    """A configuration for transformers' Llama class with `is_causal` off, which is LLaDA."""
    own = fields(config)
    return {
        "architectures": ["LlamaForCausalLM"],
        "is_causal": False,
        **{name: value for name, value in own.items() if name not in _OWN},
        "rope_parameters": {"rope_type": "default", "rope_theta": own["rope_theta"]},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": False,
    }


def to_upstream(config: Config) -> dict[str, Any]:
    """A configuration under the published names."""
    names, own = {plain: name for name, plain in _FIELDS.items()}, fields(config)
    kept = {names.get(name, name): value for name, value in own.items() if name not in _OWN}
    written = {name: own[name] for name in ("rope", "rope_theta", "embedding_size")}
    return {**_UPSTREAM_FORM, **FIXED, **kept, **written}


LLADA = Family(
    name="llada",
    model_types=("llada",),
    plain_type="llama",
    network="weft_rl.models.modeling_llada:LLaDAForMaskedLM",
    sizes=sizes,
    tensors=tensors,
    to_plain=to_plain,
    to_upstream=to_upstream,
    published={"llada_8b": _CODE, "llada_1_5": "GSAI-ML/LLaDA-1.5"},
    published_sizes=EIGHT_B,
    mask_token="<|mdm_mask|>",
    end_of_turn="<|eot_id|>",
    end_of_turn_id=_DEFAULTS["eot_token_id"],
    remote_code=_REMOTE_CODE,
    chat_template=CHAT_TEMPLATE,
)
