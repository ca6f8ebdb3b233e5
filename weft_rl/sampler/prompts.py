"""Token ids of prompts that are texts or chats."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from weft_rl.data.text import TextEncoder


def encode_prompts(
    prompts: Sequence[Any] | None, tokenizer: PreTrainedTokenizerBase | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (N, P) of texts or chats, padded on the left."""
    if tokenizer is None:
        raise ValueError("generate: prompts need a tokenizer")
    if prompts is None or not prompts or isinstance(prompts, str):
        raise ValueError(f"prompts={prompts!r}: give a list of texts, or of chats")
    if any(isinstance(prompt, Mapping) for prompt in prompts):
        raise ValueError("prompts: got one chat; give a list of chats, prompts=[chat]")
    encoder = TextEncoder(tokenizer)
    if not all(isinstance(prompt, str) for prompt in prompts) and tokenizer.chat_template is None:
        raise ValueError("prompts: the tokenizer has no chat template for chats; give texts")
    rows = [
        encoder.context(prompt) if isinstance(prompt, str) else encoder.chats([prompt])[0]
        for prompt in prompts
    ]
    return pad_left(rows, tokenizer, device)


def pad_left(
    rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (N, P) of rows of token ids, padded on the left.

    A tokenizer without a padding token, as Llama's, pads with its end token."""
    width, pad = max(map(len, rows)), tokenizer.pad_token_id
    pad = tokenizer.eos_token_id if pad is None else pad
    ids = torch.full((len(rows), width), 0 if pad is None else int(pad))
    visible = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        visible[row, width - len(tokens) :] = 1
    return ids.to(device), visible.to(device)
