"""Masked views of a completion: what a model is shown of it, and how much each answer counts.

A masked diffusion model gives the log-probabilities of hidden tokens only, so the log-probability
of a completion is estimated from D views of it, each with some tokens hidden. Every estimator here
draws such views; `token_estimate` adds up what the model says of them. Tokens after the end are
hidden, since the sampler does not wait for them; `trace` shows there what the sampler had filled.

N completions, D views of each, T tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from weft_rl.diffusion.quadrature import gauss_legendre
from weft_rl.diffusion.tensor_checks import require_everywhere, require_shape

# A completion's step for a token that the sampler never committed.
NEVER = torch.iinfo(torch.long).max
# Mask ratios: far enough from 0 and 1 for weights of at most 5 (coupled), and for both kinds of
# token to be there (random masks). Sources: coupled-GRPO's and UniGRPO's ranges.
_COUPLED_TIMES = (0.2, 0.8)
_RANDOM_TIMES = (0.1, 0.9)


@dataclass(frozen=True)
class MaskedViews:
    """D masked views of each completion."""

    masked: Tensor  # (N, D, T) bool, hidden from the model
    weight: Tensor  # (N, D, T) float32, of a token's log-probability in its estimate; 0 if shown
    bounded: Tensor | None = None  # (N, T) bool, the tokens that a bound is on; None: no bound

    @property
    def seen(self) -> Tensor:
        """Tokens that some view estimates: (N, T) bool."""
        return (self.weight > 0).any(1)

    @property
    def scored(self) -> Tensor:
        """Tokens whose estimates make up the completion's: (N, T) bool.

        Of a bound these are all of its tokens. Those that no view hides count 0, and weights make
        up for them: a mean is over all, or it would be too large by what weights make up. SPG's
        upper bound has its weights inside a logarithm and makes up for them by itself."""
        return self.seen if self.bounded is None else self.bounded

    def first(self, count: int) -> "MaskedViews":
        """Of the first so many tokens."""
        bounded = None if self.bounded is None else self.bounded[..., :count]
        return MaskedViews(self.masked[..., :count], self.weight[..., :count], bounded)


def token_estimate(log_p: Tensor, weight: Tensor) -> Tensor:
    """Each token's estimate, sum over views of weight * log p: (N, C).

    log_p, weight (N, D, C)."""
    require_shape("weight", weight, log_p.shape)
    return torch.where(weight > 0, weight * log_p, 0.0).sum(1)


def one_step(answer: Tensor) -> MaskedViews:
    """One view with everything hidden: cheap, shared by all completions of a prompt, biased.

    answer (N, T) bool: the tokens up to the end. Source: d1, diffu-GRPO."""
    return MaskedViews(torch.ones_like(answer)[:, None], answer.float()[:, None])


def coupled(answer: Tensor, generators: Sequence[torch.Generator]) -> MaskedViews:
    """Three views: everything hidden, a random part hidden, and its complement hidden.

    A token's estimate is half of log p with all hidden plus log p / ratio in the view that hides
    it, whose weight is 1/2 (1 + 1/ratio): 3/2 on average, as published. Source: coupled-GRPO."""
    low, high = _COUPLED_TIMES
    draw = _uniform(generators, 1 + answer.shape[1])
    ratio = low + (high - low) * draw[:, :1].to(answer.device)  # (N, 1)
    part = draw[:, 1:].to(answer.device) < ratio
    hidden = torch.stack([torch.ones_like(part), part, ~part], dim=1) | ~answer[:, None]
    share = torch.stack([torch.full_like(ratio, 0.5), 0.5 / ratio, 0.5 / (1 - ratio)], dim=1)
    own = torch.stack([torch.ones_like(part), part, ~part], dim=1) & answer[:, None]
    return MaskedViews(hidden, share * own)


def random_mask(answer: Tensor, generators: Sequence[torch.Generator], draws: int) -> MaskedViews:
    """Views at random mask ratios; a token's estimate is its mean over the views that hide it.

    Tokens that no view hides are not scored. Source: UniGRPO."""
    low, high = _RANDOM_TIMES
    count = answer.shape[1]
    draw = _uniform(generators, draws * (1 + count)).to(answer.device).view(-1, draws, 1 + count)
    own = (draw[..., 1:] < low + (high - low) * draw[..., :1]) & answer[:, None]
    hits = own.sum(1, keepdim=True).clamp(min=1)
    return MaskedViews(own | ~answer[:, None], own / hits)


def elbo(
    answer: Tensor,
    generators: Sequence[torch.Generator],
    draws: int,
    *,
    times: Literal["random", "quadrature"] = "random",
    complement: bool = False,
    block_length: int | None = None,
) -> MaskedViews:
    """Views whose weighted sum is the evidence lower bound on a completion's log-probability.

    answer (N, T) bool, its tokens first. times: "random" hides l tokens, l uniform from 1 to the
    length, with weight length / l: unbiased; "quadrature" hides each token with a ratio t that runs
    over the `draws` Gauss-Legendre nodes: exact over t for up to 2 `draws` tokens, and only the
    masks are left to chance. complement adds the opposite mask of each draw: 2 `draws` views.
    block_length: bound for a sampler that works block by block, where a draw looks at one block,
    with the earlier ones shown and the later ones hidden; None is one block.
    Raises ValueError for an answer with gaps or without tokens. Sources: LLaDA's likelihood, ESPO
    (complement), GDPO (quadrature), SPG (blocks)."""
    length = answer.sum(-1)
    whole = torch.arange(answer.shape[1], device=answer.device) < length[:, None]
    require_everywhere("answer", (answer == whole) & (length > 0)[:, None], "must be a prefix")
    width = block_length or answer.shape[1]
    draw = _uniform(generators, draws * (answer.shape[1] + 3)).to(answer.device)
    draw = draw.view(len(answer), draws, -1)
    blocks = (length + width - 1) // width  # (N,)
    # one draw from each of `draws` equal parts of the blocks, in random order: every draw by itself
    # is uniform, and together they are spread
    part = (draw[..., 0].argsort(-1) + draw[..., 1]) / draws
    block = (part * blocks[:, None]).long().minimum(blocks[:, None] - 1)  # (N, D)
    place = torch.arange(answer.shape[1], device=answer.device) // width
    inside = (place == block[..., None]) & answer[:, None]  # (N, D, T)
    later = (place > block[..., None]) | ~answer[:, None]
    kept = _hidden(draw[..., 2:], inside, times=times, complement=complement)
    masked = [(hide & inside) | later for hide, _ in kept]
    weight = [(hide & inside) * (blocks[:, None] * share)[..., None] for hide, share in kept]
    return MaskedViews(torch.cat(masked, dim=1), torch.cat(weight, dim=1).float(), answer)


def _hidden(
    draw: Tensor, inside: Tensor, *, times: Literal["random", "quadrature"], complement: bool
) -> list[tuple[Tensor, Tensor]]:
    """What each draw hides (N, D, T) and the weight (N, D) of a hidden token, D views or two times.

    draw (N, D, 1 + T) uniform; inside (N, D, T) bool: the tokens of a draw's block."""
    draws, size = draw.shape[1], inside.sum(-1)
    if times == "quadrature":
        t, share = (each.to(draw.device) for each in gauss_legendre(draws))
        hide = draw[..., 1:] < t[:, None]
        pair = [
            (hide, (share / t).expand(size.shape)),
            (~hide, (share / (1 - t)).expand(size.shape)),
        ]
    else:
        # with its complement a draw may hide nothing: the other then hides everything
        least = 0 if complement else 1
        choices = size + 1 - least
        count = least + (draw[..., 0] * choices).long().minimum(choices - 1)
        # the tokens of the block with the smallest draws
        rank = draw[..., 1:].masked_fill(~inside, 2).argsort(-1).argsort(-1)
        hide = rank < count[..., None]
        pair = [(hide, choices / count.clamp(min=1) / draws)]
        pair += [(~hide, choices / (size - count).clamp(min=1) / draws)]
    return [(each, weight / 2) for each, weight in pair] if complement else pair[:1]


def trace(answer: Tensor, order: Tensor, slices: int) -> MaskedViews:
    """Views along the sampler's own steps: each shows what was known when a slice of them began.

    order (N, T) long: the step that committed each token, NEVER for one that was left hidden. The
    steps that a row took are cut into `slices`, or into as many as there are. With a slice a step
    the sum over tokens is the log-probability of the tokens drawn. It is that of all the sampler
    did, to a constant, with sampler.remasking=random and nothing filled in after the end; where
    confidence chooses the places, they hang on the tokens drawn and count as well.
    Raises ValueError for a token of the answer without a step. Source: TraceRL."""
    require_shape("order", order, answer.shape)
    committed = order < NEVER
    require_everywhere("order", committed | ~answer, "a token of the answer has no step")
    taken = order.where(committed, -1).amax(-1, keepdim=True) + 1  # (N, 1)
    count = min(slices, int(taken.max()))
    # of a row with fewer steps than that some slices are empty: their views repeat the next one's
    bounds = torch.arange(count + 1, device=answer.device) * taken // count  # (N, D + 1)
    known, begin, end = order[:, None], bounds[:, :-1, None], bounds[:, 1:, None]
    own = (known >= begin) & (known < end) & answer[:, None]
    return MaskedViews(known >= begin, own.float())


def _uniform(generators: Sequence[torch.Generator], count: int) -> Tensor:
    """Draws of each row from its own generator: (N, count) in [0, 1)."""
    return torch.stack([torch.rand(count, generator=own) for own in generators])
