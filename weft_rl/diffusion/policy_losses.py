"""Policy losses per token and their aggregation; rl_methods.RL_LOSSES lists them.

B completions, D views, C tokens. advantages: (B,). Log-probabilities: (B, C). loss_mask: (B, C)
bool, tokens in the loss."""

import torch
from torch import Tensor

from weft_rl.diffusion.rl_methods import RLNorm
from weft_rl.diffusion.tensor_checks import require_shape


def ppo_clip_loss(ratio: Tensor, advantages: Tensor, clip_coef: float) -> tuple[Tensor, Tensor]:
    """-min(ratio A, clip(ratio, 1 - clip_coef, 1 + clip_coef) A), and where the clip is active.

    ratio: (B, C) or (B, 1). Returns the loss and a bool tensor of the same shape. Source: PPO,
    GRPO."""
    require_shape("advantages", advantages, (len(ratio),))
    a = advantages[:, None]
    loss = -torch.min(ratio * a, ratio.clamp(1 - clip_coef, 1 + clip_coef) * a)
    clipped = ((ratio < 1 - clip_coef) & (a < 0)) | ((ratio > 1 + clip_coef) & (a > 0))
    return loss, clipped


def sequence_ratio(new: Tensor, old: Tensor, loss_mask: Tensor) -> Tensor:
    """exp(mean over tokens of log p_new - log p_old) of each completion: (B, 1).

    With ELBOs as log-probabilities, the ratio of ESPO and GDPO. Source: GSPO."""
    total = torch.where(loss_mask, new - old, 0.0).sum(-1)
    return torch.exp(total / loss_mask.sum(-1).clamp(min=1))[:, None]


def reinforce_loss(new: Tensor, advantages: Tensor) -> Tensor:
    """-A log p: (B, C). With wd1_weights as advantages, the loss of wd1."""
    require_shape("advantages", advantages, (len(new),))
    return -advantages[:, None] * new


def eubo(log_p: Tensor, weight: Tensor, exponent: float, loss_mask: Tensor) -> Tensor:
    """Evidence upper bound of each token, (1/b) log sum over views of w p^b, times L / K: (B, C).

    L is the number of tokens of a completion, K that of the tokens masked in some view. The sum
    over a completion is L times the mean over those K. Weights inside the logarithm do not
    compensate for tokens that no view masks; their bound is 0. log_p, weight: (B, D, C) as for
    token_estimate, which is the limit b -> 0 if weights sum to 1 and K = L. Raises ValueError for
    mismatched shapes. Source: SPG (Renyi's bound); L / K is its code's mean over masked tokens."""
    require_shape("weight", weight, log_p.shape)
    require_shape("loss_mask", loss_mask, (len(log_p), log_p.shape[-1]))
    estimated = (weight > 0).any(1)
    # mask before and after: neither log 0 nor an empty sum may enter the graph
    positive = torch.where(estimated[:, None], weight, 1.0)
    terms = torch.where(weight > 0, exponent * log_p, 0.0) + positive.log()
    bound = terms.logsumexp(1) / exponent
    lengths = loss_mask.sum(-1, keepdim=True).clamp(min=1)
    share = estimated.sum(-1, keepdim=True).clamp(min=1) / lengths
    return torch.where(estimated, bound, 0.0) / share


def spg_loss(lower: Tensor, upper: Tensor, advantages: Tensor, mixture: float) -> Tensor:
    """-A lower for A > 0, else -A (mixture upper + (1 - mixture) lower): (B, C).

    Decreasing a lower bound would not decrease the probability. Source: SPG."""
    a = advantages[:, None]
    return -a * torch.where(a > 0, lower, mixture * upper + (1 - mixture) * lower)


def kl_k3(new: Tensor, reference: Tensor) -> Tensor:
    """KL(new || reference) per token, e^d - d - 1, d = reference - new: (B, C). Schulman's k3."""
    d = reference - new
    return d.exp() - d - 1


def kl_k2_sequence(new: Tensor, reference: Tensor, loss_mask: Tensor) -> Tensor:
    """(log p_new - log p_ref)^2 / (2 length) per completion, for bounds: (B, 1). ESPO, k2."""
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
    """Contribution of one micro-batch to the step's loss: (). Contributions sum to the loss.

    loss: (B, C) or (B, 1). tokens: (), number of loss tokens of the step. rows: completions of the
    step. normalizer: "bnpo" and "dapo" average over tokens; "grpo" averages the completions' means;
    "dr_grpo" divides by rows * gen_length; "group" sums over a prompt's completions and averages
    over prompts (wd1). Raises ValueError for an unknown normalizer. Sources: TRL's names for the
    normalizers of d1, DAPO, GRPO and Dr. GRPO."""
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
