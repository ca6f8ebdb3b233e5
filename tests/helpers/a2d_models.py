"""Random autoregressive folders with a byte-level BPE like SmolLM2's."""

import json

import torch
from bpe import byte_level
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
# A default system message and an end of turn after each message, as SmolLM2's template.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZES = {
    **{"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": 512},
}


def chat_bpe(*more):
    """more: further special tokens, such as a mask."""
    return byte_level(
        [*SPECIAL, *more],
        TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )


def causal_folder(folder, kind="llama", *, tied=True, spare=0, tokenizer=None, **fields):
    """Save a random causal model; spare: rows of the embedding beyond the tokenizer."""
    tokenizer = tokenizer or chat_bpe()
    config_class, network = CLASSES[kind]
    options = {"head_dim": 12} if kind != "qwen2" else {}
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    torch.manual_seed(0)
    model = network(
        config_class(
            vocab_size=len(tokenizer) + spare,
            tie_word_embeddings=tied,
            initializer_range=0.3,
            **{f"{name}_token_id": token for name, token in ids.items()},
            **SIZES | options,
        )
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # initialized to 0
            parameter.data.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if fields:
        change(folder, **fields)
    return folder


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
