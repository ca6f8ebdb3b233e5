"""Vocabulary head in chunks, to save memory (C positions, D hidden size, V vocabulary)."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weft_rl.families.shape import LOGITS_TOGETHER

# (..., c, V) logits and the first position's index to (..., c, *); rerun in the backward pass.
LogitsFn = Callable[[Tensor, int], Tensor]
# Positions to compute: (K,) or (B, K) long, or rows and positions, (M,) each.
LogitsToKeep = Tensor | tuple[Tensor, Tensor] | None


class VocabularyHead(nn.Linear):
    """Linear layer from hidden states to logits, or to a function of them."""

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__(hidden_size, vocab_size, bias=False)

    def forward(self, input: Tensor, logits_fn: LogitsFn | None = None) -> Tensor:
        """Return the logits (..., C, V) of hidden states (..., C, D), or `logits_fn` of them.

        With `logits_fn`, at most LOGITS_TOGETHER logits exist at a time, and the backward pass
        recomputes the logits of each chunk. A single chunk is computed once."""
        if logits_fn is None:
            return super().forward(input)
        positions = input.dim() - 2
        rows = prod(input.shape[:-2])
        size = max(1, LOGITS_TOGETHER // max(1, rows * self.out_features))
        if size >= input.shape[positions]:
            return logits_fn(super().forward(input), 0)

        # not self(...): with sharded weights, every module call is a collective
        def chunk_fn(chunk: Tensor, begin: int) -> Tensor:
            return logits_fn(nn.functional.linear(chunk, self.weight), begin)

        chunks = [
            checkpoint(chunk_fn, chunk, size * n, use_reentrant=False, preserve_rng_state=False)
            for n, chunk in enumerate(input.split(size, positions))
        ]
        return torch.cat(chunks, positions)
