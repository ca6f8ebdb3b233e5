"""Random checkpoints in the published layouts, independent of the package's writers."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

from weft_rl.families.dream import DREAM
from weft_rl.models.toy import tiny_tokenizer

LLADA_CONFIG = {
    "architectures": ["LLaDAModelLM"],
    "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
    "model_type": "llada",
    "d_model": 24,
    "n_layers": 3,
    "n_heads": 3,
    "n_kv_heads": 3,
    "mlp_hidden_size": 40,
    "max_sequence_length": 32,
    "rope_theta": 50.0,
    "rms_norm_eps": 1e-5,
    "activation_type": "silu",
    "block_type": "llama",
    "layer_norm_type": "rms",
    "weight_tying": False,
    "vocab_size": 52,
    "embedding_size": 52,
    "mask_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
DREAM_CONFIG = {
    "architectures": ["DreamModel"],
    "auto_map": {"AutoModel": "modeling_dream.DreamModel"},
    "model_type": "Dream",
    "vocab_size": 52,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "rope_theta": 50.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "mask_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def llada_shapes(config):
    d, inner, rows = config["d_model"], config["mlp_hidden_size"], config["vocab_size"]
    top = "model.transformer."
    shapes = {f"{top}wte.weight": (rows, d), f"{top}ln_f.weight": (d,)}
    shapes[f"{top}ff_out.weight"] = (rows, d)
    for n in range(config["n_layers"]):
        block = f"{top}blocks.{n}."
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            shapes[f"{block}{name}.weight"] = (d, d)
        for name in ("ff_proj", "up_proj"):
            shapes[f"{block}{name}.weight"] = (inner, d)
        shapes[f"{block}ff_out.weight"] = (d, inner)
        for name in ("attn_norm", "ff_norm"):
            shapes[f"{block}{name}.weight"] = (d,)
    return shapes


def dream_shapes(config):
    return {spec.upstream: spec.shape for spec in DREAM.tensors(DREAM.sizes(config))}


def random_tensors(shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (0.3 * torch.randn(shape, generator=generator) + (len(shape) == 1)).to(dtype)
        for name, shape in shapes.items()
    }


def write_folder(folder, config, tensors, shards=3):
    """Write an index and shards; tensors are dealt so that no shard has a full layer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {key: tensors[key] for key in list(tensors)[number::shards]}
        save_file(part, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def llada_folder(folder, dtype=torch.float32, /, shards=3, **changes):
    config = LLADA_CONFIG | changes
    tensors = random_tensors(llada_shapes(config), dtype)
    return write_folder(folder, config, tensors, shards), tensors


def dream_folder(folder, dtype=torch.float32, /, shards=3, **changes):
    config = DREAM_CONFIG | changes
    tensors = random_tensors(dream_shapes(config), dtype)
    return write_folder(folder, config, tensors, shards), tensors


# As published: an assistant header after every conversation.
UPSTREAM_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


def with_tokenizer(folder, template=UPSTREAM_TEMPLATE):
    """The tiny tokenizer in upstream's form: custom template, no mask token."""
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token, tokenizer.chat_template = None, template
    tokenizer.save_pretrained(folder)
    return folder


def llada_with_tokenizer(folder, **changes):
    ids = tiny_tokenizer().get_vocab()
    special = {"mask_token_id": ids["<|mdm_mask|>"], "eos_token_id": ids["<|endoftext|>"]}
    special |= {"pad_token_id": ids["<|endoftext|>"], "eot_token_id": ids["<|eot_id|>"]}
    special |= {"vocab_size": 56, "embedding_size": 56}
    return with_tokenizer(llada_folder(folder, **(special | changes))[0])


def dream_with_tokenizer(folder):
    """A Dream checkpoint whose tokenizer references remote code, and its vocabulary."""
    dream_folder(folder, vocab_size=300, eot_token_id=3)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*alphabet, "ab"], 4)}
    vocabulary |= {"<|mask|>": 0, "<|endoftext|>": 1, "<|im_start|>": 2, "<|im_end|>": 3}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    code = {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]}
    content = {"tokenizer_class": "DreamTokenizer", "auto_map": code, "eos_token": "<|endoftext|>"}
    content |= {"mask_token": "<|mask|>", "chat_template": "{{ messages[0]['content'] }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder, vocabulary
