"""The vocabulary head a few positions at a time: all logits at once can be most of the memory.

C positions, D hidden, V vocabulary."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weft_rl.budget import LOGITS_TOGETHER

# Makes of the logits (..., c, V) of the positions from the given one on what is wanted of each:
# its c is the same dimension. Called again on the way back.
Reduce = Callable[[Tensor, int], Tensor]


def reduced_logits(head: nn.Module, x: Tensor, vocab_size: int, reduce: Reduce) -> Tensor:
    """`reduce` of head(x), x (..., C, D), with no more than LOGITS_TOGETHER logits at a time.

    The parts' results are put together along C. On the way back a part's logits are computed once
    more; where they are few enough for one part, nothing is computed twice."""
    positions = x.dim() - 2
    rows = x[..., 0, 0].numel() if x.shape[-2] else 1
    size = max(1, LOGITS_TOGETHER // (rows * vocab_size))
    if size >= x.shape[-2]:
        return reduce(head(x), 0)

    def part(piece: Tensor, begin: int) -> Tensor:
        return reduce(head(piece), begin)

    parts = [
        checkpoint(part, piece, size * number, use_reentrant=False, preserve_rng_state=False)
        for number, piece in enumerate(x.split(size, positions))
    ]
    return torch.cat(parts, positions)
