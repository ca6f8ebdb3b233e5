"""The exact ELBO under unequal masking rates, with bounded weights.

The ELBO integrates each token's cross-entropy over its masking probability t_i. With one uniform t
for all tokens, the weight dt_i/dt has infinite variance below half the mean rate. A margin at t = 1
truncates slow tokens: at a tenth of the mean rate, t <= 0.999 drops half of the integral. Instead,
the t_i of one uniformly drawn answer token is uniform. The weight dt_i/dt over the mean of all
dt_j/dt keeps the ELBO and is at most the number of tokens.

log_survival = -log(1 - t) avoids the rounding of t near 1: slow tokens need values above 100."""

from collections.abc import Sequence

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_shape, widen


def survival_mask_probability(log_survival: Tensor, beta: Tensor, beta_ref: Tensor) -> Tensor:
    """Probability that each token is masked: 1 - exp(-beta / beta_ref * log_survival).

    log_survival: (B, 1) >= 0, -log(1 - t). beta: (B, L) >= 0, any unit. beta_ref: (B, 1) > 0, same
    unit. Returns (B, L) in [0, 1]. Raises ValueError for mismatched shapes. Source: WeFT Eq. 21."""
    require_shape("log_survival", log_survival, (len(beta), 1))
    require_shape("beta_ref", beta_ref, (len(beta), 1))
    # expm1: in float32 1 - exp(-1e-8) is 0, and the loss divides by it
    return -torch.expm1(-rate_ratio(beta, beta_ref) * widen(log_survival))


def token_log_survival(
    probability: Tensor,
    beta: Tensor,
    beta_ref: Tensor,
    answer: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """-log(1 - t) of each row at which a uniformly drawn answer token k has mask `probability`.

    Computes -log(1 - probability) beta_ref / beta_k. probability: (B, 1) in (0, 1), uniform. beta:
    (B, L) > 0 in the answer. beta_ref: (B, 1). answer: (B, L) bool, not empty. generators: one per
    row. Returns (B, 1). Raises ValueError for mismatched shapes."""
    require_shape("probability", probability, (len(beta), 1))
    require_shape("answer", answer, beta.shape)
    ratio = rate_ratio(beta, beta_ref)
    token = torch.zeros_like(probability, dtype=torch.long)
    for row, generator in enumerate(generators):
        positions = answer[row].nonzero()[:, 0]
        token[row, 0] = positions[int(torch.randint(len(positions), (1,), generator=generator))]
    return -torch.log1p(-widen(probability)) / ratio.gather(1, token)


def elbo_weights(log_survival: Tensor, beta: Tensor, beta_ref: Tensor, answer: Tensor) -> Tensor:
    """Loss weight of each token for a draw of token_log_survival: slope_i / mean_j slope_j.

    slope_i = dt_i/dt = r_i exp(-r_i log_survival) up to a common factor, r = beta / beta_ref.
    Shapes as above. Returns (B, L) >= 0, which sums to the number of answer tokens; 0 outside the
    answer, 1 for equal rates. Used as token_weight with normalizer "none", the expected loss is the
    negative ELBO. Raises ValueError for mismatched shapes."""
    require_shape("log_survival", log_survival, (len(beta), 1))
    require_shape("answer", answer, beta.shape)
    ratio = rate_ratio(beta, beta_ref)
    # exp(-r log_survival) underflows for every token at large values; softmax subtracts the largest
    log_slope = (ratio.log() - ratio * widen(log_survival)).masked_fill(~answer, -torch.inf)
    return log_slope.softmax(-1) * answer.sum(-1, keepdim=True)


def rate_ratio(beta: Tensor, beta_ref: Tensor) -> Tensor:
    """(B, L) beta / beta_ref, clamped to finite: inf times a log that rounds to 0 would be NaN."""
    ratio = widen(beta) / widen(beta_ref)
    return ratio.clamp(max=torch.finfo(ratio.dtype).max)
