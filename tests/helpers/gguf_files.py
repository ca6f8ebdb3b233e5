"""Small causal models and their GGUF files, written with the package gguf by hand-made names."""

import json

import torch
from bpe import byte_level
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# GGUF's names of a layer's tensors. Source: the GGUF specification.
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
HEADS, GROUPS = 4, 2


def chat_tokenizer(pre="qwen2"):
    """A byte-level BPE; pre `smollm` splits digits, and then words as GPT-2 does."""
    tokenizer = byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    return tokenizer


def causal_model(kind, rows, seed=0, **changes):
    """A random causal model of two layers with tied embeddings."""
    options = {
        "vocab_size": rows,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "head_dim": 128 if kind == "qwen3" else 8,  # transformers reads no other from a file
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500.0,
        "tie_word_embeddings": True,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options | changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.eval()


def write_gguf(path, model, tokenizer, *, pre="qwen2", quantization=None, without=()):
    """quantization: type of the matrices. without: GGUF names of tensors to leave out."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim if config.model_type == "qwen3" else 8)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    add_tokenizer(writer, tokenizer, pre)
    kind = gguf.GGMLQuantizationType[quantization] if quantization else None
    for name, tensor in tensors_of(model).items():
        if name in without:
            continue
        values = tensor.numpy()
        if kind is None or values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer, tokenizer, pre):
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = {*tokenizer.all_special_ids}
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words)
    writer.add_token_types([3 if i in special else 1 for i in range(len(words))])  # 3: control
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def tensors_of(model):
    """A model's tensors by GGUF name; Llama's queries and keys have their halves interleaved."""
    weights, found = model.state_dict(), {}
    for name, tensor in weights.items():
        module, _, suffix = name.rpartition(".")
        parts = module.split(".", 3)
        if parts[:2] == ["model", "layers"]:
            (short,) = (gguf for gguf, ours in LAYER.items() if ours == parts[3])
            if model.config.model_type == "llama" and short in ("attn_q", "attn_k"):
                heads = HEADS if short == "attn_q" else GROUPS
                tensor = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
            found[f"blk.{parts[2]}.{short}.{suffix}"] = tensor.contiguous()
        else:
            (short,) = (gguf for gguf, ours in TOP.items() if ours == module)
            if short != "output" or not model.config.tie_word_embeddings:
                found[f"{short}.{suffix}"] = tensor
    return found
