"""Random LLaDA-8B checkpoint in the published layout, with a tokenizer, for gpu.py."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from weft_rl.data.tasks import task_prompt
from weft_rl.data.toy import BOS, EOS, EOT, MASK
from weft_rl.families.llada import CHAT_TEMPLATE, LLADA

# Source: the published config.json.
CONFIG = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "mlp_hidden_size": 12288,
    "max_sequence_length": 4096,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "activation_type": "silu",
    "block_type": "llama",
    "layer_norm_type": "rms",
    "weight_tying": False,
    "mask_token_id": 126336,
    "bos_token_id": 126080,
    "eos_token_id": 126081,
    "eot_token_id": 126348,
    "pad_token_id": 126081,
}
HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
# Upstream's special token ids.
PLACES = {BOS: 126080, EOS: 126081, MASK: 126336, EOT: 126348}
PLACES |= {header: 126346 + i for i, header in enumerate(HEADERS)}
_SHARD = 4 * 2**30


def write(folder: Path, device: torch.device, **changes: int) -> Path:
    """Write the checkpoint in bfloat16, drawn on the device. changes: to the configuration."""
    folder.mkdir(parents=True)
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))
    _tokenizer().save_pretrained(folder)
    index: dict[str, str] = {}
    for number, shard in enumerate(_shards(config, device)):
        name = f"model-{number:05}.safetensors"
        save_file(shard, folder / name, {"format": "pt"})
        index |= dict.fromkeys(shard, name)
    named = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(named))
    return folder


def _shards(config: dict, device: torch.device) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator(device).manual_seed(0)
    shard: dict[str, Tensor] = {}
    size = 0
    for spec in LLADA.tensors(LLADA.sizes(config)):
        tensor = torch.ones(spec.shape, dtype=torch.bfloat16, device=device)
        if len(spec.shape) > 1:
            tensor.normal_(std=0.02, generator=generator)
        shard[spec.upstream] = tensor.cpu()
        size += tensor.nbytes
        if size > _SHARD:
            yield shard
            shard, size = {}, 0
    yield shard


def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of a prompt's words, filler tokens, and LLaDA's special token ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False)
    prompt = task_prompt("d1", "sudoku", {"puzzle": "0" * 16})
    backend.train_from_iterator([prompt], trainer)
    known = json.loads(backend.to_str())["model"]
    words = [word for word in known["vocab"] if word not in PLACES]
    words += [f"<|unused_{i}|>" for i in range(len(words), max(PLACES.values()) + 1)]
    for text, place in PLACES.items():
        words[place] = text
    merges = [tuple(pair) for pair in known["merges"]]
    backend.model = models.BPE({word: i for i, word in enumerate(words)}, merges)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        extra_special_tokens=[EOT, *HEADERS],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
