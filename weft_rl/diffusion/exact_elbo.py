"""The exact bound under unequal rates, with weights that stay bounded.

Each token's cross-entropy is to be integrated over its own masking probability t_i. One time t for
all, uniform, with the slope dt_i/dt as weight is exact in the mean, but the slope's variance is
infinite for a token below half the mean rate, and a margin at t = 1 loses most of a slow token's
share: at a tenth of the mean rate, half of it at t <= 0.999. Here t comes instead from the answer's
tokens in turn: one of them is chosen and its own t_i is uniform. Then the weights that keep the
bound are slope_i over the mean of all slopes, and no weight exceeds the number of tokens.

clock = -log(1 - t) is t without its rounding near 1: slow tokens need clocks of 100 and more."""

from collections.abc import Sequence

import torch
from torch import Tensor

from weft_rl.diffusion.precision import widen
from weft_rl.diffusion.tensor_checks import require_shape


def clock_probability(clock: Tensor, beta: Tensor, beta_ref: Tensor) -> Tensor:
    """Chance that each token is masked: 1 - exp(-beta / beta_ref * clock), clock = -log(1 - t).

    clock (B, 1) >= 0; beta (B, L) >= 0, any unit; beta_ref (B, 1) > 0, same unit. Returns (B, L)
    in [0, 1]. Raises ValueError when the shapes do not fit. Source: WeFT Eq. 21."""
    require_shape("clock", clock, (len(beta), 1))
    require_shape("beta_ref", beta_ref, (len(beta), 1))
    # expm1: in float32 1 - exp(-1e-8) is 0, and the loss divides by it
    return -torch.expm1(-rate_ratio(beta, beta_ref) * widen(clock))


def clock_of_one_token(
    own: Tensor,
    beta: Tensor,
    beta_ref: Tensor,
    answer: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The clock at which one answer token of each row, drawn evenly, has masking probability `own`.

    own (B, 1) in (0, 1), uniform; beta (B, L) > 0 in the answer; beta_ref (B, 1); answer (B, L)
    bool, not empty; a generator for each row. Returns (B, 1): -log(1 - own) beta_ref / beta_k.
    With equal rates it is -log(1 - own) whatever the token. Raises ValueError for other shapes."""
    require_shape("own", own, (len(beta), 1))
    require_shape("answer", answer, beta.shape)
    ratio = rate_ratio(beta, beta_ref)
    chosen = torch.zeros_like(own, dtype=torch.long)
    for row, generator in enumerate(generators):
        inside = answer[row].nonzero()[:, 0]
        chosen[row, 0] = inside[int(torch.randint(len(inside), (1,), generator=generator))]
    return -torch.log1p(-widen(own)) / ratio.gather(1, chosen)


def elbo_weights(clock: Tensor, beta: Tensor, beta_ref: Tensor, answer: Tensor) -> Tensor:
    """slope_i / mean over the answer of slope_j: what a draw of clock_of_one_token weighs (B, L).

    slope_i = r_i exp(-r_i clock) up to a common factor, r = beta / beta_ref. Shapes as above.
    Weights are >= 0 and sum to the number of answer tokens; 0 outside the answer; 1 for equal
    rates. As a token_weight with normalizer "none" the expected loss is the negative ELBO."""
    require_shape("clock", clock, (len(beta), 1))
    require_shape("answer", answer, beta.shape)
    ratio = rate_ratio(beta, beta_ref)
    # exp(-r clock) underflows for every token at large clocks; a softmax takes the largest out
    score = (ratio.log() - ratio * widen(clock)).masked_fill(~answer, -torch.inf)
    return score.softmax(-1) * answer.sum(-1, keepdim=True)


def rate_ratio(beta: Tensor, beta_ref: Tensor) -> Tensor:
    """(B, L) beta / beta_ref, finite: an overflow times a log that rounds to 0 would be NaN."""
    ratio = widen(beta) / widen(beta_ref)
    return ratio.clamp(max=torch.finfo(ratio.dtype).max)
