"""LLaDA and LLaDA-1.5: Llama without a causal mask, under different names."""

from typing import Any

from weft_rl.families.base import SIZE_FIELDS, Family, Sizes
from weft_rl.families.fields import FLAG, OPTIONAL_COUNT

# LLaDA-8B and LLaDA-1.5. Source: the published configuration.
EIGHT_B = Sizes(126464, 4096, 32, 32, 32, 12288)
_CODE = "GSAI-ML/LLaDA-8B-Instruct"
# Optional generation prompt: upstream's always appends one, which fine-tuning then learns to write.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# transformers omits defaults (LLaDA-8B's) from a saved configuration.
_SAVED_DEFAULTS: dict[str, Any] = {
    **{name: getattr(EIGHT_B, name) for name in SIZE_FIELDS if name != "num_key_value_heads"},
    "max_position_embeddings": 4096,
    "rope_theta": 500000.0,
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

LLADA = Family(
    name="llada",
    model_types=("llada",),
    transformers_type="llama",
    architectures=("LLaDAModelLM", "LlamaForCausalLM"),
    network="weft_rl.models.modeling_llada:LLaDAForMaskedLM",
    published={"llada_8b": _CODE, "llada_1_5": "GSAI-ML/LLaDA-1.5"},
    published_sizes=EIGHT_B,
    license="mit",
    mask_token="<|mdm_mask|>",
    end_of_turn="<|eot_id|>",
    end_of_turn_id=_SAVED_DEFAULTS["eot_token_id"],
    remote_code={  # source: the published configuration
        "AutoConfig": f"{_CODE}--configuration_llada.LLaDAConfig",
        "AutoModel": f"{_CODE}--modeling_llada.LLaDAModelLM",
        "AutoModelForCausalLM": f"{_CODE}--modeling_llada.LLaDAModelLM",
    },
    module_names={
        "model.embed_tokens": "model.transformer.wte",
        "model.embed_positions": "model.transformer.wpe",
        "model.layers": "model.transformer.blocks",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "q_proj",
        "self_attn.k_proj": "k_proj",
        "self_attn.v_proj": "v_proj",
        "self_attn.o_proj": "attn_out",
        "post_attention_layernorm": "ff_norm",
        "mlp.gate_proj": "ff_proj",
        "mlp.up_proj": "up_proj",
        "mlp.down_proj": "ff_out",
        "model.norm": "model.transformer.ln_f",
        "lm_head": "model.transformer.ff_out",
    },
    field_names={
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "intermediate_size": "mlp_hidden_size",
        "max_position_embeddings": "max_sequence_length",
        "hidden_act": "activation_type",
    },
    kinds={"rope": FLAG, "embedding_size": OPTIONAL_COUNT},
    # the defaults of upstream's class are another model's
    required=(
        *(name for name in SIZE_FIELDS if name != "num_key_value_heads"),
        *("max_position_embeddings", "hidden_act"),
        *("mask_token_id", "eos_token_id", "pad_token_id"),
    ),
    # Llama's class and upstream's have different defaults
    required_in_transformers=("rms_norm_eps",),
    defaults={"rope": True, "rms_norm_eps": 1e-5},
    saved_defaults=_SAVED_DEFAULTS,
    fixed={
        **dict.fromkeys(_OFF, False),
        **dict.fromkeys(("attention_dropout", "embedding_dropout", "residual_dropout"), 0.0),
        **{"block_group_size": 1, "block_type": "llama", "layer_norm_type": "rms"},
        **{"layer_norm_with_affine": True, "rope_full_precision": True},
    },
    equal={"num_key_value_heads": "num_attention_heads", "embedding_size": "vocab_size"},
    ignored=("alibi_bias_max", "attention_layer_norm_with_affine"),
    vocabulary_ids=("mask_token_id", "eos_token_id"),
    chat_template=CHAT_TEMPLATE,
)
