"""The vocabulary head a few positions at a time: all logits at once can be most of the memory.

C positions, D hidden, V vocabulary."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weft_rl.families.shape import LOGITS_TOGETHER

# Makes of the logits (..., c, V) of the positions from the given one on what is wanted of each:
# its c is the same dimension. Called again on the way back.
Reduce = Callable[[Tensor, int], Tensor]


class VocabularyHead(nn.Linear):
    """From hidden states to logits, or to what is wanted of them."""

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__(hidden_size, vocab_size, bias=False)

    def forward(self, input: Tensor, reduce: Reduce | None = None) -> Tensor:
        """Logits (..., C, V) of hidden states (..., C, D); or `reduce` of them, LOGITS_TOGETHER at
        most at a time, put together along C.

        On the way back a part's logits are computed once more; where they are few enough for one
        part, nothing is computed twice."""
        if reduce is None:
            return super().forward(input)
        positions = input.dim() - 2
        rows = prod(input.shape[:-2])
        size = max(1, LOGITS_TOGETHER // max(1, rows * self.out_features))
        if size >= input.shape[positions]:
            return reduce(super().forward(input), 0)

        # not self(...): where weights are sharded, each call of a module is a turn of all processes
        def part(piece: Tensor, begin: int) -> Tensor:
            return reduce(nn.functional.linear(piece, self.weight), begin)

        parts = [
            checkpoint(part, piece, size * number, use_reentrant=False, preserve_rng_state=False)
            for number, piece in enumerate(input.split(size, positions))
        ]
        return torch.cat(parts, positions)
