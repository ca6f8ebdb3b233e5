"""Log-probability estimators: masked views of a completion and their weights.

A masked diffusion model predicts masked tokens only, so D views estimate the log-probability of a
completion; `token_estimate` sums their weighted log-probabilities. Tokens after the end are masked,
as the sampler sees them; `trace` shows the sampler's tokens there.

N completions, D views of each, T tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_everywhere, require_shape

# unmask_step of a token that the sampler never unmasked
NEVER = torch.iinfo(torch.long).max
# Mask ratios: weights of at most 5 (coupled); masked and visible tokens in each view (random
# masks). Sources: the ranges of coupled-GRPO and UniGRPO.
_COUPLED_RATIOS = (0.2, 0.8)
_RANDOM_RATIOS = (0.1, 0.9)


@dataclass(frozen=True)
class MaskedViews:
    """D masked views of each completion."""

    masked: Tensor  # (N, D, T) bool
    weight: Tensor  # (N, D, T) float32, log-probability weight; 0 for visible tokens
    bound_mask: Tensor | None = None  # (N, T) bool, tokens of the bound; None: no bound

    @property
    def loss_mask(self) -> Tensor:
        """Tokens in a completion's estimate: (N, T) bool.

        All tokens for a bound: its weights compensate for tokens that no view masks. Otherwise the
        tokens that some view masks. SPG's upper bound weights inside a logarithm and corrects
        itself."""
        return (self.weight > 0).any(1) if self.bound_mask is None else self.bound_mask

    def first(self, count: int) -> "MaskedViews":
        """Return the views of the first `count` tokens."""
        bound_mask = None if self.bound_mask is None else self.bound_mask[..., :count]
        return MaskedViews(self.masked[..., :count], self.weight[..., :count], bound_mask)


def token_estimate(log_p: Tensor, weight: Tensor) -> Tensor:
    """Sum over views of weight * log p per token: (N, C).

    log_p, weight: (N, D, C). Raises ValueError for mismatched shapes."""
    require_shape("weight", weight, log_p.shape)
    return torch.where(weight > 0, weight * log_p, 0.0).sum(1)


def one_step(answer: Tensor) -> MaskedViews:
    """One fully masked view, biased. answer: (N, T) bool, up to the end. Source: d1, diffu-GRPO."""
    return MaskedViews(torch.ones_like(answer)[:, None], answer.float()[:, None])


def coupled(answer: Tensor, generators: Sequence[torch.Generator]) -> MaskedViews:
    """Three views: fully masked, a random mask, and its complement.

    A token's estimate is (log p under the full mask + log p / ratio in the view that masks it) / 2.
    The mean weight is 3/2, as published. answer: (N, T) bool. generators: one per row. Source:
    coupled-GRPO."""
    low, high = _COUPLED_RATIOS
    draw = _uniform(generators, 1 + answer.shape[1])
    ratio = low + (high - low) * draw[:, :1].to(answer.device)  # (N, 1)
    part = draw[:, 1:].to(answer.device) < ratio
    views = torch.stack([torch.ones_like(part), part, ~part], dim=1)
    share = torch.stack([torch.full_like(ratio, 0.5), 0.5 / ratio, 0.5 / (1 - ratio)], dim=1)
    return MaskedViews(views | ~answer[:, None], share * (views & answer[:, None]))


def random_mask(answer: Tensor, generators: Sequence[torch.Generator], draws: int) -> MaskedViews:
    """Views at random mask ratios; a token's estimate is its mean over the views that mask it.

    Tokens that no view masks are excluded from the loss. answer: (N, T) bool. generators: one per
    row. Source: UniGRPO."""
    low, high = _RANDOM_RATIOS
    count = answer.shape[1]
    draw = _uniform(generators, draws * (1 + count)).to(answer.device).view(-1, draws, 1 + count)
    part = (draw[..., 1:] < low + (high - low) * draw[..., :1]) & answer[:, None]
    hits = part.sum(1, keepdim=True).clamp(min=1)
    return MaskedViews(part | ~answer[:, None], part / hits)


def elbo(
    answer: Tensor,
    generators: Sequence[torch.Generator],
    draws: int,
    *,
    times: Literal["random", "quadrature"] = "random",
    complement: bool = False,
    block_length: int | None = None,
) -> MaskedViews:
    """Views whose weighted sum is the ELBO of a completion's log-probability.

    answer: (N, T) bool, a prefix of each row. times: "random" masks l tokens, l uniform from 1 to
    the length, with weight length / l: unbiased. "quadrature" masks each token with ratio t at the
    `draws` Gauss-Legendre nodes: exact over t for up to 2 `draws` tokens. complement adds the
    opposite mask of each draw: 2 `draws` views. block_length: bound of a block-wise sampler; each
    draw masks within one block, with earlier blocks visible and later ones masked. None: one block.
    Raises ValueError for an answer with gaps or without tokens. Sources: LLaDA's likelihood, ESPO
    (complement), GDPO (quadrature), SPG (blocks)."""
    length = answer.sum(-1)
    prefix = torch.arange(answer.shape[1], device=answer.device) < length[:, None]
    require_everywhere("answer", (answer == prefix) & (length > 0)[:, None], "must be a prefix")
    width = block_length or answer.shape[1]
    draw = _uniform(generators, draws * (answer.shape[1] + 3)).to(answer.device)
    draw = draw.view(len(answer), draws, -1)
    blocks = (length + width - 1) // width  # (N,)
    # stratified over the blocks, in random order: each draw is uniform by itself
    part = (draw[..., 0].argsort(-1) + draw[..., 1]) / draws
    block = (part * blocks[:, None]).long().minimum(blocks[:, None] - 1)  # (N, D)
    block_index = torch.arange(answer.shape[1], device=answer.device) // width
    inside = (block_index == block[..., None]) & answer[:, None]  # (N, D, T)
    later = (block_index > block[..., None]) | ~answer[:, None]
    pairs = _block_masks(draw[..., 2:], inside, times=times, complement=complement)
    masked = [(mask & inside) | later for mask, _ in pairs]
    weight = [(mask & inside) * (blocks[:, None] * share)[..., None] for mask, share in pairs]
    return MaskedViews(torch.cat(masked, dim=1), torch.cat(weight, dim=1).float(), answer)


def _block_masks(
    draw: Tensor, inside: Tensor, *, times: Literal["random", "quadrature"], complement: bool
) -> list[tuple[Tensor, Tensor]]:
    """Mask (N, D, T) and weight (N, D) of a masked token, for each draw and its complement.

    draw: (N, D, 1 + T) uniform. inside: (N, D, T) bool, tokens of a draw's block."""
    draws, size = draw.shape[1], inside.sum(-1)
    if times == "quadrature":
        t, share = (each.to(draw.device) for each in gauss_legendre(draws))
        mask = draw[..., 1:] < t[:, None]
        pairs = [
            (mask, (share / t).expand(size.shape)),
            (~mask, (share / (1 - t)).expand(size.shape)),
        ]
    else:
        # with a complement a draw may mask nothing: the complement then masks everything
        least = 0 if complement else 1
        choices = size + 1 - least
        count = least + (draw[..., 0] * choices).long().minimum(choices - 1)
        # mask the tokens of the block with the smallest draws
        rank = draw[..., 1:].masked_fill(~inside, 2).argsort(-1).argsort(-1)
        mask = rank < count[..., None]
        pairs = [(mask, choices / count.clamp(min=1) / draws)]
        pairs += [(~mask, choices / (size - count).clamp(min=1) / draws)]
    return [(mask, weight / 2) for mask, weight in pairs] if complement else pairs[:1]


def trace(answer: Tensor, unmask_step: Tensor, slices: int) -> MaskedViews:
    """Views along the sampler's steps: each shows the canvas before a slice of the steps.

    answer: (N, T) bool. unmask_step: (N, T) long, the step that unmasked each token; NEVER if none
    did. A row's steps are cut into at most `slices`. With one step per slice, the sum over tokens
    is the log-probability of the sampled tokens. With sampler.remasking=random and no tokens after
    the end, it equals that of the trajectory up to a constant. With confidence remasking, the
    positions also depend on the tokens. Raises ValueError for an answer token without a step.
    Source: TraceRL."""
    require_shape("unmask_step", unmask_step, answer.shape)
    unmasked = unmask_step < NEVER
    require_everywhere("unmask_step", unmasked | ~answer, "a token of the answer has no step")
    steps = unmask_step.where(unmasked, -1).amax(-1, keepdim=True) + 1  # (N, 1)
    count = min(slices, int(steps.max()))
    # a row with fewer steps has empty slices that repeat the next view
    bounds = torch.arange(count + 1, device=answer.device) * steps // count  # (N, D + 1)
    step, begin, end = unmask_step[:, None], bounds[:, :-1, None], bounds[:, 1:, None]
    weight = (step >= begin) & (step < end) & answer[:, None]
    return MaskedViews(step >= begin, weight.float())


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes in (0, 1) and weights by Golub and Welsch: two (count,) float32."""
    k = torch.arange(1, count, dtype=torch.float64)
    off_diagonal = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return ((nodes + 1) / 2).float(), (vectors[0] ** 2).float()


def _uniform(generators: Sequence[torch.Generator], count: int) -> Tensor:
    return torch.stack([torch.rand(count, generator=generator) for generator in generators])
