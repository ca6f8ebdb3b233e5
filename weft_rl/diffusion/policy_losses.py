"""Losses whose gradient moves a policy towards its better completions.

Each gives a loss per token; `aggregate` makes a number of them. B completions, C tokens; advantages
are (B,), log-probabilities (B, C), `scored` (B, C) bool says which tokens have one."""

from typing import Literal

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_shape

Normalizer = Literal["bnpo", "grpo", "dr_grpo", "dapo", "group"]


def ppo_clip_loss(ratio: Tensor, advantages: Tensor, clip_coef: float) -> tuple[Tensor, Tensor]:
    """-min(ratio A, clip(ratio) A), and where the clip holds the gradient back (bool).

    ratio (B, C) or (B, 1). Source: PPO, as in GRPO."""
    require_shape("advantages", advantages, (len(ratio),))
    a = advantages[:, None]
    loss = -torch.min(ratio * a, ratio.clamp(1 - clip_coef, 1 + clip_coef) * a)
    held = ((ratio < 1 - clip_coef) & (a < 0)) | ((ratio > 1 + clip_coef) & (a > 0))
    return loss, held


def sequence_ratio(new: Tensor, old: Tensor, scored: Tensor) -> Tensor:
    """Ratio of a completion's probabilities to the power 1 / its length: (B, 1).

    scored: the tokens that the length counts, a bound's being all of the completion. With evidence
    lower bounds for log-probabilities it is ESPO's and GDPO's. Source: GSPO."""
    return torch.exp(_token_mean(new - old, scored))[:, None]


def reinforce_loss(new: Tensor, advantages: Tensor) -> Tensor:
    """-A log p: (B, C). With wd1_weights for advantages it is wd1's loss."""
    require_shape("advantages", advantages, (len(new),))
    return -advantages[:, None] * new


def eubo(log_p: Tensor, weight: Tensor, exponent: float, scored: Tensor) -> Tensor:
    """Evidence upper bound of each token, (1/b) ln sum over views of w p^b, times L / K: (B, C).

    L is the completion's number of tokens, K that of the tokens with a weight in some view: the sum
    over a completion is L times the mean over those K. The weight is inside the logarithm, so it
    does not make up for tokens that no view masks. These are 0.
    log_p, weight (B, D, C) as for token_estimate, which is the limit from above for b to 0 when a
    token's weights sum to 1 and K = L; scored (B, C) bool, the L tokens.
    Source: SPG (Renyi's bound), and for L / K the mean over masked tokens in its code."""
    require_shape("weight", weight, log_p.shape)
    require_shape("scored", scored, (len(log_p), log_p.shape[-1]))
    estimated = (weight > 0).any(1)
    # twice where: neither log 0 nor the sum over nothing may reach the graph
    seen = torch.where(estimated[:, None], weight, 1.0)
    inside = torch.where(weight > 0, exponent * log_p, 0.0) + seen.log()
    total = inside.logsumexp(1) / exponent
    share = estimated.sum(-1, keepdim=True).clamp(min=1) / scored.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(estimated, total, 0.0) / share


def spg_loss(lower: Tensor, upper: Tensor, advantages: Tensor, mixture: float) -> Tensor:
    """-A times a lower bound of log p for A > 0, and a mixture with an upper one else: (B, C).

    Pushing a lower bound down would not push the probability down. mixture: share of the upper
    bound, 1 is the upper bound alone. Source: SPG."""
    a = advantages[:, None]
    return -a * torch.where(a > 0, lower, mixture * upper + (1 - mixture) * lower)


def kl_k3(new: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(new || reference) from each token, e^d - d - 1, d = reference - new: (B, C).

    Never negative. Source: Schulman's k3."""
    d = reference - new
    return d.exp() - d - 1


def kl_k2_sequence(new: Tensor, reference: Tensor, scored: Tensor) -> Tensor:
    """Half the squared difference of the completion's log-probabilities over its length: (B, 1).

    For bounds, whose tokens have no probability of their own. Source: ESPO, Schulman's k2."""
    difference = torch.where(scored, new - reference, 0.0).sum(-1)
    return (difference**2 / scored.sum(-1).clamp(min=1) / 2)[:, None]


def aggregate(
    loss: Tensor,
    scored: Tensor,
    normalizer: Normalizer,
    *,
    tokens: Tensor,
    rows: int,
    gen_length: int,
    group: int,
) -> Tensor:
    """One micro-batch's share of a step's loss: the shares of a step add up to the loss.

    loss (B, C) or (B, 1); tokens (): scored tokens of the step; rows: completions of the step.
    "bnpo" and "dapo" are the mean over tokens; "grpo" the mean over completions of their means;
    "dr_grpo" divides by all tokens there could be; "group" sums over a prompt's completions and
    takes the mean over prompts, which is wd1's.
    Sources: TRL's names for GRPO's, Dr. GRPO's and DAPO's normalisers, and d1's."""
    kept = loss * scored
    if normalizer in ("bnpo", "dapo"):
        return kept.sum() / tokens.clamp(min=1)
    if normalizer == "dr_grpo":
        return kept.sum() / (rows * gen_length)
    if normalizer == "group":
        return kept.sum() / (rows / group)
    if normalizer != "grpo":
        raise ValueError(f"normalizer={normalizer!r}: one of bnpo, grpo, dr_grpo, dapo, group")
    return (kept.sum(-1) / scored.sum(-1).clamp(min=1)).sum() / rows


def _token_mean(values: Tensor, scored: Tensor) -> Tensor:
    return torch.where(scored, values, 0.0).sum(-1) / scored.sum(-1).clamp(min=1)
