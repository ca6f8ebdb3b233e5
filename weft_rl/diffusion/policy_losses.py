"""Policy losses per token, and how they become one number; rl_methods.RL_LOSSES lists them.

B completions, D views, C tokens. advantages: (B,). Log-probabilities: (B, C). loss_mask: (B, C)
bool, the tokens that have one."""

import torch
from torch import Tensor

from weft_rl.diffusion.rl_methods import RLNorm
from weft_rl.diffusion.tensor_checks import require_shape


def ppo_clip_loss(ratio: Tensor, advantages: Tensor, clip_coef: float) -> tuple[Tensor, Tensor]:
    """-min(ratio A, clip(ratio, 1 - clip_coef, 1 + clip_coef) A), and where the clip is active.

    ratio: (B, C) or (B, 1). Returns the loss and a bool tensor of its shape. Source: PPO, GRPO."""
    require_shape("advantages", advantages, (len(ratio),))
    a = advantages[:, None]
    loss = -torch.min(ratio * a, ratio.clamp(1 - clip_coef, 1 + clip_coef) * a)
    clipped = ((ratio < 1 - clip_coef) & (a < 0)) | ((ratio > 1 + clip_coef) & (a > 0))
    return loss, clipped


def sequence_ratio(new: Tensor, old: Tensor, loss_mask: Tensor) -> Tensor:
    """exp(mean over tokens of log p_new - log p_old) of each completion: (B, 1).

    With evidence lower bounds as log-probabilities it is ESPO's and GDPO's. Source: GSPO."""
    total = torch.where(loss_mask, new - old, 0.0).sum(-1)
    return torch.exp(total / loss_mask.sum(-1).clamp(min=1))[:, None]


def reinforce_loss(new: Tensor, advantages: Tensor) -> Tensor:
    """-A log p: (B, C). With wd1_weights as advantages it is wd1's loss."""
    require_shape("advantages", advantages, (len(new),))
    return -advantages[:, None] * new


def eubo(log_p: Tensor, weight: Tensor, exponent: float, loss_mask: Tensor) -> Tensor:
    """Evidence upper bound of each token, (1/b) log sum over views of w p^b, times L / K: (B, C).

    L is a completion's number of tokens, K that of the tokens that some view masks: the sum over a
    completion is L times the mean over those K. The weight is inside the logarithm, so it does not
    make up for tokens that no view masks; their bound is 0. log_p, weight: (B, D, C) as for
    token_estimate, the limit for b -> 0 if a token's weights sum to 1 and K = L.
    Raises ValueError if the shapes do not match.
    Source: SPG (Renyi's bound); L / K is the mean over masked tokens in its code."""
    require_shape("weight", weight, log_p.shape)
    require_shape("loss_mask", loss_mask, (len(log_p), log_p.shape[-1]))
    estimated = (weight > 0).any(1)
    # twice where: neither log 0 nor an empty sum may reach the graph
    positive = torch.where(estimated[:, None], weight, 1.0)
    terms = torch.where(weight > 0, exponent * log_p, 0.0) + positive.log()
    bound = terms.logsumexp(1) / exponent
    lengths = loss_mask.sum(-1, keepdim=True).clamp(min=1)
    share = estimated.sum(-1, keepdim=True).clamp(min=1) / lengths
    return torch.where(estimated, bound, 0.0) / share


def spg_loss(lower: Tensor, upper: Tensor, advantages: Tensor, mixture: float) -> Tensor:
    """-A lower for A > 0, else -A (mixture upper + (1 - mixture) lower): (B, C).

    Lowering a lower bound of log p would not lower the probability. Source: SPG."""
    a = advantages[:, None]
    return -a * torch.where(a > 0, lower, mixture * upper + (1 - mixture) * lower)


def kl_k3(new: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(new || reference) per token, e^d - d - 1 >= 0, d = reference - new: (B, C).

    Source: Schulman's k3."""
    d = reference - new
    return d.exp() - d - 1


def kl_k2_sequence(new: Tensor, reference: Tensor, loss_mask: Tensor) -> Tensor:
    """(log p_new - log p_ref)^2 / (2 length) of each completion: (B, 1).

    For bounds, whose tokens have no probability of their own. Source: ESPO, Schulman's k2."""
    difference = torch.where(loss_mask, new - reference, 0.0).sum(-1)
    return (difference**2 / loss_mask.sum(-1).clamp(min=1) / 2)[:, None]


def aggregate(
    loss: Tensor,
    loss_mask: Tensor,
    normalizer: RLNorm,
    *,
    tokens: Tensor,
    rows: int,
    gen_length: int,
    group: int,
) -> Tensor:
    """Share of one micro-batch in a step's loss: (). The shares of a step add up to the loss.

    loss: (B, C) or (B, 1). tokens: (), the step's number of tokens in the loss. rows: the step's
    completions. normalizer: "bnpo" and "dapo" are the mean over tokens; "grpo" the mean over
    completions of their means; "dr_grpo" divides by rows * gen_length; "group" sums over a prompt's
    completions and takes the mean over prompts (wd1). Raises ValueError for another one.
    Sources: TRL's names for the normalizers of d1, DAPO, GRPO and Dr. GRPO."""
    masked_loss = loss * loss_mask
    if normalizer in ("bnpo", "dapo"):
        return masked_loss.sum() / tokens.clamp(min=1)
    if normalizer == "dr_grpo":
        return masked_loss.sum() / (rows * gen_length)
    if normalizer == "group":
        return masked_loss.sum() / (rows / group)
    if normalizer != "grpo":
        raise ValueError(f"normalizer={normalizer!r}: one of bnpo, grpo, dr_grpo, dapo, group")
    return (masked_loss.sum(-1) / loss_mask.sum(-1).clamp(min=1)).sum() / rows
