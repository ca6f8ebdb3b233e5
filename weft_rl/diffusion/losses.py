"""Weighted cross-entropy of masked tokens."""

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from weft_rl.diffusion.recipes import LossNorm
from weft_rl.diffusion.tensor_checks import require_shape, widen


def denoising_loss(
    logits: Tensor,
    x0: Tensor,
    masked: Tensor,
    probability: Tensor,
    answer: Tensor,
    token_weight: Tensor | None = None,
    normalizer: LossNorm = "answer",
) -> Tensor:
    """Mean over sequences of sum over masked i of weight_i / probability_i * (-log p(x0_i)).

    logits: (B, L, V). x0: (B, L) long. masked: (B, L) bool. probability: (B, L), > 0 where masked.
    answer: (B, L) bool. token_weight: (B, L), or None for 1. normalizer: divisor of each sequence's
    sum: answer length ("answer", LLaDA), number of masked tokens ("masked", as printed in WeFT's
    Algorithm 1) or 1 ("none", the ELBO). Returns a float32 scalar, float64 for float64 logits.
    Sequences without masked tokens add 0. Raises ValueError for an unknown normalizer or mismatched
    shapes. Source: WeFT Eq. 10 and Algorithm 1, reading its indicator as "is masked"."""
    require_shape("logits", logits, (*x0.shape, logits.shape[-1]))
    nll = F.cross_entropy(widen(logits).flatten(0, 1), x0.flatten(), reduction="none")
    nll = nll.view(x0.shape)
    return sequence_losses(nll, masked, probability, answer, token_weight, normalizer).mean()


def sequence_losses(
    nll: Tensor,
    masked: Tensor,
    probability: Tensor,
    answer: Tensor,
    token_weight: Tensor | None = None,
    normalizer: LossNorm = "answer",
) -> Tensor:
    """denoising_loss of each sequence: (B,). nll: (B, L), finite, -log p(x0_i) where masked."""
    for name, value in (("masked", masked), ("probability", probability), ("answer", answer)):
        require_shape(name, value, nll.shape)
    if normalizer not in get_args(LossNorm):
        raise ValueError(f"normalizer={normalizer!r}: one of {', '.join(get_args(LossNorm))}")
    # keep 1 / 0 of unmasked tokens out of the graph: 0 * inf would be NaN
    weight = 1 / torch.where(masked, widen(probability), 1.0)
    if token_weight is not None:
        require_shape("token_weight", token_weight, nll.shape)
        weight = weight * widen(token_weight)
    total = torch.where(masked, weight * nll, 0.0).sum(-1)  # (B,)
    if normalizer == "answer":
        total = total / answer.sum(-1).clamp(min=1)
    elif normalizer == "masked":
        total = total / masked.sum(-1).clamp(min=1)
    return total
