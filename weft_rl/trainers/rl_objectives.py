"""Per-token RL losses of a micro-batch's views. B completions, D views, C tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from weft_rl.config.rl import LossConfig
from weft_rl.diffusion.logprob_estimators import MaskedViews, token_estimate
from weft_rl.diffusion.policy_losses import (
    eubo,
    kl_k2_sequence,
    kl_k3,
    ppo_clip_loss,
    reinforce_loss,
    sequence_ratio,
    spg_loss,
)
from weft_rl.diffusion.rl_methods import RL_LOSSES


@dataclass(frozen=True)
class LossInputs:
    """Inputs of a loss besides the log-probabilities of the trained policy."""

    advantages: Tensor  # (B,), or wd1's weights
    old: Tensor | None = None  # (B, C) log-probs of the sampling policy; None: the trained policy
    reference: Tensor | None = None  # (B, C)
    entropy_mask: Tensor | None = None  # (B, C) bool, loss tokens; None: all
    kl_cov_mask: Tensor | None = None  # (B, C) bool, tokens with a KL penalty


@dataclass(frozen=True)
class TokenLoss:
    """A loss per token and its metrics: (B, C), or (B, 1) per completion."""

    loss: Tensor
    loss_mask: Tensor  # (B, C) bool
    clipped: Tensor | None  # bool, where the clip is active
    kl: Tensor | None


def token_loss(
    loss_type: str,
    log_p: Tensor,
    views: MaskedViews,
    inputs: LossInputs,
    options: LossConfig,
    kl_coef: float,
) -> TokenLoss:
    """Loss of an entry of RL_LOSSES. log_p: (B, D, C) of the views under the trained policy."""
    weight, loss_mask, a = views.weight, views.loss_mask, inputs.advantages
    new = token_estimate(log_p, weight)
    old = new.detach() if inputs.old is None else inputs.old
    clipped, kl = None, None
    match RL_LOSSES[loss_type].formula:
        case "reinforce":
            loss = reinforce_loss(new, a)
        case "spg":
            upper = eubo(log_p, weight, options.spg_exponent, loss_mask)
            loss = spg_loss(new, upper, a, options.spg_mixture)
        case "sequence_clip":
            ratio = sequence_ratio(new, old, loss_mask)
            loss, clipped = ppo_clip_loss(ratio, a, options.clip_coef)
        case "ppo_clip":
            loss, clipped = ppo_clip_loss(torch.exp(new - old), a, options.clip_coef)
            if inputs.entropy_mask is not None:
                loss = loss * inputs.entropy_mask
            if inputs.kl_cov_mask is not None:
                loss = loss + options.kl_cov_coef * (new - old).abs() * inputs.kl_cov_mask
    if kl_coef and inputs.reference is not None:
        if options.kl_estimator == "k2_sequence":
            kl = kl_k2_sequence(new, inputs.reference, loss_mask)
        else:
            kl = kl_k3(new, inputs.reference)
        loss = loss + kl_coef * kl
    return TokenLoss(loss, loss_mask, clipped, kl)
