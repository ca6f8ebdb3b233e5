"""From logits to one token and its confidence for each open position, on the model's device.

N open positions, V vocabulary."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Tokens summed together before the walk along the vocabulary: about the square root of V, so that
# both walks are short. Any width gives the same law.
_WIDTH = 256
# Temperatures below are this one: a float32 difference of logits divided by less is infinite.
_COLDEST = 1e-30


def candidates(
    logits: Tensor, draws: Tensor | None, temperature: float, forbidden: Sequence[int]
) -> Tensor:
    """A token for each position and its probability at temperature 1: (2, N) int32.

    logits (N, V), overwritten; draws (N,) float64 in [0, 1), None at temperature 0; forbidden:
    tokens that are never drawn. The second row holds the bits of float32 probabilities over the
    whole vocabulary, so that one transfer takes both; NaN where the logits name no token."""
    logits = logits.float()
    never = torch.tensor(forbidden, device=logits.device)
    kept = logits.index_select(1, never)
    logits.index_fill_(1, never, -torch.inf)
    token = logits.argmax(dim=1) if draws is None else drawn(logits, draws, temperature)
    # at -inf there was nothing to choose but forbidden tokens
    possible = logits.gather(1, token[:, None])[:, 0].isfinite()
    logits.index_copy_(1, never, kept)
    confidence = logits.softmax(dim=1).gather(1, token[:, None])[:, 0]
    confidence = confidence.where(possible, torch.nan)
    return torch.stack([token.int(), confidence.view(torch.int32)])


def drawn(logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """Tokens from softmax(logits / temperature) by their cumulative probability: (N,) long.

    logits (N, V) float32, -inf for what is impossible; draws (N,) float64 in [0, 1). One draw a
    position has the law of the published sampler's V exponential draws. Rare tokens keep their
    share down to 2^-53, as the draws and the sums that decide are float64. NaN gives any token."""
    top = logits.amax(dim=1, keepdim=True)
    weight = (logits - top).div_(max(temperature, _COLDEST)).exp_()
    width = min(_WIDTH, weight.shape[1])
    whole = weight.shape[1] // width * width
    # float64: beside a weight of 1, float32 would lose all tokens below 2^-24 together
    sums = [weight[:, :whole].unflatten(1, (-1, width)).sum(dim=2, dtype=torch.float64)]
    sums.append(weight[:, whole:].sum(dim=1, keepdim=True, dtype=torch.float64))
    running = torch.cat(sums, dim=1)
    chunk, rest = _walk(running, draws * running.sum(dim=1))
    inside = chunk[:, None] * width + torch.arange(width, device=logits.device)
    within = weight.gather(1, inside.clamp(max=weight.shape[1] - 1))
    within.masked_fill_(inside >= weight.shape[1], 0)
    place, _ = _walk(within, rest)
    return (chunk * width + place).clamp(max=weight.shape[1] - 1)


def _walk(weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first index at which the running sum exceeds the target, and how far into it.

    weight (N, M); target (N,) float64. Both (N,); never an index of weight 0, unless all are."""
    total = weight.cumsum(dim=1, dtype=torch.float64)
    # rounding may put the target at the very end, where no sum exceeds it
    last = total[:, -1] * (1 - 2.0**-52)
    target = torch.minimum(target, last)
    index = torch.searchsorted(total, target[:, None], right=True).clamp(max=weight.shape[1] - 1)
    before = (total.gather(1, index) - weight.gather(1, index))[:, 0]
    return index[:, 0], (target - before).clamp(min=0)
