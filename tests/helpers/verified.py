"""Models for `verify` whose answers are known by hand, and a reader of its text."""

import json
import re

import torch
from bpe import CHATML, byte_level, llada_bpe
from safetensors.torch import load_file, save_file
from tiny_model import write_bpe_model
from transformers import LlamaConfig, LlamaForCausalLM

from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.loading import fresh_model


def facts(text):
    """{section: {name: values}} of the printed text, continuation lines joined."""
    found, section, name = {}, {}, ""
    for line in text.splitlines()[1:]:
        if re.fullmatch(r"[A-Za-z0-9 ]+", line) and line[0] != " ":
            section = found.setdefault(line, {})
        elif line.startswith("  "):
            name = line[2:16].strip() or name
            section.setdefault(name, []).append(line[16:])
    found.pop("ok", None)
    return {
        section: {
            name: " ".join(line.removesuffix(" ") for line in lines) for name, lines in each.items()
        }
        for section, each in found.items()
    }


def write_oracle(folder, rows):
    """A model that gives position i the logits rows[i]: no layers, one-hot learned positions."""
    write_bpe_model(folder)
    tokenizer, length = llada_bpe(), len(rows)
    config = json.loads((folder / "config.json").read_text())
    sizes = {
        "hidden_size": length,
        "num_attention_heads": 1,
        "max_position_embeddings": length,
        "rms_norm_eps": 1e-12,
    }
    names = ("mask_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "eot_token_id")
    ids = {name: config[name] for name in names}
    model = fresh_model(
        LLaDAConfig(
            **sizes, **ids, vocab_size=len(tokenizer), rope=False, num_hidden_layers=1,
            intermediate_size=8,
        ),
        0,
    )  # fmt: skip
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        tensor.fill_(1.0 if "norm" in name or name.endswith("ln_f.weight") else 0.0)
    tensors["model.transformer.wpe.weight"] = torch.eye(length)
    # the final norm scales a one-hot vector by sqrt(length)
    tensors["model.transformer.ff_out.weight"] = rows.T.contiguous() / length**0.5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_llama(folder, tokenizer, **options):
    """A Llama with tied embeddings; returns the folder and its number of parameters."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    names = ("eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names} | options
    rows = len(tokenizer)
    config = LlamaConfig(
        **sizes, **ids, num_attention_heads=4, vocab_size=rows, tie_word_embeddings=True
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # two layers: 4 * 32^2, 3 * 32 * 48 and two norms; embeddings once, and the last norm
    return folder, 2 * (4 * 32**2 + 3 * 32 * 48 + 64) + rows * 32 + 32


def chatml_without_mask():
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return byte_level(["<|im_start|>", "<|im_end|>"], CHATML, **ends)
