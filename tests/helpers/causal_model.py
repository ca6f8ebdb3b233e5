"""A small untrained causal Llama with a byte-level vocabulary and ChatML, in a folder."""

import torch
from bpe import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_causal(folder, seed=0, **options):
    """Write the model with changed options of its config; returns the folder."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    names = {"bos_token": special[1], "eos_token": special[2], "pad_token": special[2]}
    tokenizer = byte_level(special, TEMPLATE, unk_token=special[0], **names)
    sizes = {
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48},
        **{"max_position_embeddings": 256, "tie_word_embeddings": True},
        **{f"{name}_id": getattr(tokenizer, f"{name}_id") for name in names},
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**sizes | options))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
