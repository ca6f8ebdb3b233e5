"""Weights of masked tokens' losses for cold starts with uniform masking rates.

The weight of WeFT (SW), Eq. 15-16, is token_rates("sqrt_entropy", ...)."""

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_everywhere, require_shape, widen


def dream_weights(masked: Tensor, visible: Tensor, p: float = 0.3) -> Tensor:
    """Half the sum over unmasked j of Geo(p, |j - i| - 1), where Geo(p, k) = p (1 - p)^k.

    A token deep inside a masked stretch has a small weight, one between known neighbors up to p.
    masked: (B, L) bool. visible: (B, L) bool, the sequence's tokens, masked or not, without
    padding. p: in (0, 1]. Returns (B, L) float32 in [0, 1], 0 where not masked, where Eq. 17 leaves
    Geo(p, -1) open. Raises ValueError for shapes that do not match and for another p.
    Source: WeFT Eq. 17, after Dream (arXiv 2508.15487); p = 0.3 is WeFT's choice."""
    require_shape("visible", visible, masked.shape)
    if not 0 < p <= 1:
        raise ValueError(f"p={p}: must be in (0, 1]")
    position = torch.arange(masked.shape[-1], device=masked.device)
    gap = (position[:, None] - position[None, :]).abs() - 1  # (L, L)
    # a token is not its own neighbor; clamped because (1 - p)^-1 is inf at p = 1
    kernel = torch.where(gap < 0, 0.0, p * (1 - p) ** gap.clamp(min=0).float())
    weight = (visible & ~masked).float() @ kernel / 2
    return torch.where(masked, weight, 0.0)


def own_probability(nll: Tensor) -> Tensor:
    """Each token's probability exp(-nll) as a weight without gradient: (B, L) nats -> (B, L).

    The loss p * (-log p) with fixed p has the gradient -grad p instead of -grad p / p. In nll's
    dtype, in [0, 1]. Source: DFT (arXiv 2508.05629), there for the next token."""
    return torch.exp(-nll.detach())


def excess_loss_selection(
    nll: Tensor, reference_nll: Tensor, candidates: Tensor, share: float
) -> Tensor:
    """The top share of each sequence's candidates by nll - reference_nll: (B, L) bool.

    nll, reference_nll: (B, L) in nats, of one masked input under the model and a fixed reference.
    candidates: (B, L) bool, its masked tokens. share: in (0, 1]. Of n candidates round(share n) are
    kept, at least one; of equal ones those of the lowest index. A token weight of 1 or 0.
    Raises ValueError for shapes that do not match, another share, and a candidate without a finite
    excess. Source: Rho-1 (arXiv 2404.07965), there over a batch, here within a sequence, so that
    other sequences of the batch do not change the loss."""
    require_shape("reference_nll", reference_nll, nll.shape)
    require_shape("candidates", candidates, nll.shape)
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: must be in (0, 1]")
    excess = widen(nll) - widen(reference_nll)
    require_everywhere("nll", ~candidates | excess.isfinite(), "its excess must be finite")
    excess = excess.masked_fill(~candidates, -torch.inf)
    order = excess.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    kept = (share * candidates.sum(-1, keepdim=True)).round().clamp(min=1)
    return candidates & (rank < kept)
