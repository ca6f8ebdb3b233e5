"""The forward process: times, mask probabilities and masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from weft_rl.diffusion.exact_elbo import survival_mask_probability
from weft_rl.diffusion.tensor_checks import require_shape, widen

# distance of t from 0, where the loss divides by 0, and from 1, where the slope is 0 or infinite
TIME_MARGIN = 1e-3


def mask_probability(t: Tensor, beta: Tensor, beta_ref: Tensor) -> Tensor:
    """Probability that each token is masked at time t: 1 - (1 - t)^(beta / beta_ref).

    t: (B, 1) in (0, 1). beta: (B, L) >= 0, any unit. beta_ref: (B, 1) > 0, same unit. Returns (B,
    L) in [0, 1], float64 if an argument is, else float32. Raises ValueError for mismatched shapes.
    Source: WeFT Eq. 21."""
    require_shape("t", t, (len(beta), 1))
    # log1p: in float32 1 - t is 1 at t = 1e-8
    return survival_mask_probability(-torch.log1p(-widen(t)), beta, beta_ref)


def sample_time(generators: Sequence[torch.Generator]) -> Tensor:
    """Uniform time per sequence from its generator: (B, 1) in [margin, 1 - margin]."""
    return _within_margin(torch.cat([torch.rand(1, generator=each) for each in generators]))


def stratified_times(count: int, generator: torch.Generator) -> Tensor:
    """Batch times, one from each of `count` equal strata of (0, 1), in random order.

    Each time is marginally uniform. The variance of the mean of a smooth function is of order
    1/count^3 instead of 1/count. Returns (count, 1) float32 in [margin, 1 - margin]."""
    part = torch.randperm(count, generator=generator)
    return _within_margin((part + torch.rand(count, generator=generator)) / count)


def antithetic_times(count: int, generator: torch.Generator) -> Tensor:
    """Batch times in adjacent pairs t, 1 - t; an odd last row has no partner.

    Each time is marginally uniform. Pairs lower the variance for monotone functions and double it
    for functions symmetric around 1/2. Returns (count, 1) float32 in [margin, 1 - margin]."""
    t = torch.rand((count + 1) // 2, generator=generator)
    return _within_margin(torch.stack([t, 1 - t], dim=1).flatten()[:count])


def _within_margin(uniform: Tensor) -> Tensor:
    return TIME_MARGIN + (1 - 2 * TIME_MARGIN) * uniform[:, None]


def mask_tokens(
    x0: Tensor,
    probability: Tensor,
    maskable: Tensor,
    mask_id: int,
    generator: torch.Generator | Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Replace each maskable token by the mask token with its probability, independently.

    x0: (B, L) long. probability: (B, L) in [0, 1]. maskable: (B, L) bool. generator: one for the
    batch or one per row. Per-row generators draw for maskable tokens only, so a row's mask does not
    depend on other rows or padding. Returns xt (B, L) long and masked (B, L) bool. Raises
    ValueError for mismatched shapes."""
    require_shape("probability", probability, x0.shape)
    require_shape("maskable", maskable, x0.shape)
    if isinstance(generator, torch.Generator):
        draw = torch.rand(x0.shape, generator=generator, device=generator.device).to(x0.device)
    else:
        if len(generator) != len(x0):
            raise ValueError(f"{len(generator)} generators for {len(x0)} rows")
        draw = torch.ones(x0.shape, device=x0.device)
        for row, row_generator in enumerate(generator):
            count = int(maskable[row].sum())
            draw[row, maskable[row]] = torch.rand(count, generator=row_generator).to(x0.device)
    masked = maskable & (draw < probability)
    return x0.masked_fill(masked, mask_id), masked
