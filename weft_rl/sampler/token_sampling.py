"""Sample candidate tokens with confidences on the model's device (M positions, V vocabulary)."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Width of the chunks that draw_tokens sums first: about sqrt(V), so that both searches are short.
# The distribution does not depend on it.
_WIDTH = 256
# Minimum temperature: smaller divisors give infinite logits in float32.
_MIN_TEMPERATURE = 1e-30


def sample_candidates(
    logits: Tensor, draws: Tensor | None, temperature: float, forbidden: Sequence[int]
) -> Tensor:
    """Return a token per position and its probability at temperature 1: (2, M) int32.

    logits (M, V), overwritten; draws (M,) float64 in [0, 1), None at temperature 0; forbidden:
    tokens that are never sampled. The second row holds the bits of float32 probabilities over the
    full vocabulary, so that one transfer copies both; NaN if no token is possible."""
    logits = logits.float()
    never = torch.tensor(forbidden, device=logits.device)
    kept = logits.index_select(1, never)
    logits.index_fill_(1, never, -torch.inf)
    token = logits.argmax(dim=1) if draws is None else draw_tokens(logits, draws, temperature)
    # -inf if all other tokens were impossible
    possible = logits.gather(1, token[:, None])[:, 0].isfinite()
    logits.index_copy_(1, never, kept)
    confidence = logits.softmax(dim=1).gather(1, token[:, None])[:, 0]
    confidence = confidence.where(possible, torch.nan)
    return torch.stack([token.int(), confidence.view(torch.int32)])


def draw_tokens(logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """Sample from softmax(logits / temperature) by inverting its distribution function: (M,) long.

    logits (M, V) float32, -inf for impossible tokens; draws (M,) float64 in [0, 1), one per
    position. Float64 sums preserve probabilities down to 2^-53. NaN logits give any token."""
    top = logits.amax(dim=1, keepdim=True)
    weight = (logits - top).div_(max(temperature, _MIN_TEMPERATURE)).exp_()
    width = min(_WIDTH, weight.shape[1])
    even = weight.shape[1] // width * width
    # next to a weight of 1, a float32 sum would lose all tokens below 2^-24
    sums = [weight[:, :even].unflatten(1, (-1, width)).sum(dim=2, dtype=torch.float64)]
    sums.append(weight[:, even:].sum(dim=1, keepdim=True, dtype=torch.float64))
    chunk_weight = torch.cat(sums, dim=1)
    chunk, remainder = _search(chunk_weight, draws * chunk_weight.sum(dim=1))
    inside = chunk[:, None] * width + torch.arange(width, device=logits.device)
    within = weight.gather(1, inside.clamp(max=weight.shape[1] - 1))
    within.masked_fill_(inside >= weight.shape[1], 0)
    place, _ = _search(within, remainder)
    return (chunk * width + place).clamp(max=weight.shape[1] - 1)


def _search(weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index whose cumulative sum exceeds the target, and the remainder.

    weight (M, W); target (M,) float64. Returns two (M,). Avoids weight 0 unless all are 0."""
    total = weight.cumsum(dim=1, dtype=torch.float64)
    # rounding can put the target at the end, where no sum exceeds it
    last = total[:, -1] * (1 - 2.0**-52)
    target = torch.minimum(target, last)
    index = torch.searchsorted(total, target[:, None], right=True).clamp(max=weight.shape[1] - 1)
    before = (total.gather(1, index) - weight.gather(1, index))[:, 0]
    return index[:, 0], (target - before).clamp(min=0)
