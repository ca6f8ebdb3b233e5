"""Token weights of the loss for cold starts with uniform masking rates.

token_rates("sqrt_entropy", ...) gives the weight of WeFT (SW), Eq. 15-16."""

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_everywhere, require_shape, widen


def dream_weights(masked: Tensor, visible: Tensor, p: float = 0.3) -> Tensor:
    """Half the sum over unmasked j of Geo(p, |j - i| - 1), where Geo(p, k) = p (1 - p)^k.

    The weight is small deep inside a masked span and up to p between visible neighbors. masked: (B,
    L) bool. visible: (B, L) bool, non-padding tokens. p: in (0, 1]. Returns (B, L) float32 in [0,
    1]; 0 where not masked, since Eq. 17 leaves Geo(p, -1) undefined. Raises ValueError for
    mismatched shapes or p out of range. Source: WeFT Eq. 17, after Dream (arXiv 2508.15487); p =
    0.3 is WeFT's choice."""
    require_shape("visible", visible, masked.shape)
    if not 0 < p <= 1:
        raise ValueError(f"p={p}: must be in (0, 1]")
    position = torch.arange(masked.shape[-1], device=masked.device)
    gap = (position[:, None] - position[None, :]).abs() - 1  # (L, L)
    # exclude the token itself; clamped because (1 - p)^-1 is inf at p = 1
    kernel = torch.where(gap < 0, 0.0, p * (1 - p) ** gap.clamp(min=0).float())
    weight = (visible & ~masked).float() @ kernel / 2
    return torch.where(masked, weight, 0.0)


def own_probability(nll: Tensor) -> Tensor:
    """Token probability exp(-nll) as a weight without gradient: (B, L) nats -> (B, L) in [0, 1].

    Keeps nll's dtype. With p detached, p * (-log p) has the gradient -grad p instead of -grad p /
    p. Source: DFT (arXiv 2508.05629), there for the next token."""
    return torch.exp(-nll.detach())


def excess_loss_selection(
    nll: Tensor, reference_nll: Tensor, candidates: Tensor, share: float
) -> Tensor:
    """Top share of each sequence's candidates by nll - reference_nll: (B, L) bool.

    nll, reference_nll: (B, L) in nats, of the same masked input under the model and the reference.
    candidates: (B, L) bool, masked tokens. share: in (0, 1]. Keeps round(share n) of n candidates,
    at least one; ties keep the lowest index. Used as a token weight of 1 or 0. Raises ValueError
    for mismatched shapes, share out of range or a non-finite excess of a candidate. Source: Rho-1
    (arXiv 2404.07965), there per batch; here per sequence, so that other sequences do not change
    the loss."""
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
