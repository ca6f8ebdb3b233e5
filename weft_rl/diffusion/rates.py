"""Token masking rates: how fast each answer token is noised."""

from typing import Literal, get_args

import torch
from torch import Tensor

from weft_rl.diffusion.shapes import require_shape

RateKind = Literal["uniform", "sqrt_entropy", "entropy", "nll"]

# Smallest share of the sequence's mean rate. Below it a token's masking probability underflows
# and its weight explodes: at 1/100 and t = 0.001 the weight is already 100,000.
_FLOOR = 0.01


def token_rates(kind: RateKind, logits: Tensor, x0: Tensor, answer: Tensor) -> Tensor:
    """Masking rate of each answer token from a prediction with the whole answer masked.

    kind: "uniform" 1; "sqrt_entropy" root of the entropy in nats (WeFT); "entropy" the entropy
    (WeFT, Table 5); "nll" -log p(x0_i) (WeFT Eq. 14). logits (B, L, V); x0 (B, L) long;
    answer (B, L) bool. Returns (B, L) float32 >= 0, 0 outside the answer.
    Raises ValueError for an unknown kind and for shapes that do not fit."""
    require_shape("logits", logits, (*x0.shape, logits.shape[-1]))
    require_shape("answer", answer, x0.shape)
    if kind not in get_args(RateKind):
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(get_args(RateKind))}")
    if kind == "uniform":
        rates = torch.ones(x0.shape, device=logits.device)
    else:
        log_p = logits.float().log_softmax(-1)
        if kind == "nll":
            rates = -log_p.gather(-1, x0[..., None])[..., 0]
        else:
            # xlogy form: a token of probability 0 adds 0, not 0 * -inf
            entropy = -(log_p.exp() * log_p.nan_to_num(neginf=0.0)).sum(-1)
            # rounding can leave -1e-8, whose root is NaN
            entropy = entropy.clamp(min=0)
            rates = entropy.sqrt() if kind == "sqrt_entropy" else entropy
    return torch.where(answer, rates, 0.0)


def mean_rate(beta: Tensor, answer: Tensor) -> Tensor:
    """beta_ref, the mean rate over each sequence's answer: (B, L), (B, L) bool -> (B, 1).

    Source: WeFT, Section 4. An empty answer gives 0."""
    require_shape("answer", answer, beta.shape)
    count = answer.sum(-1, keepdim=True).clamp(min=1)
    return (beta * answer).sum(-1, keepdim=True) / count


def usable_rates(beta: Tensor, answer: Tensor) -> Tensor:
    """The rates with what would break the loss mended: (B, L), (B, L) bool -> (B, L).

    A sequence whose rates are all zero falls back to uniform; within a sequence no answer token is
    below 1/100 of the mean, where 1 / t_i would explode. Outside the answer the rate is 0."""
    mean = mean_rate(beta, answer)
    floored = torch.where(mean > 0, torch.maximum(beta, _FLOOR * mean), torch.ones_like(beta))
    return torch.where(answer, floored, 0.0)
