"""An objective's loss per token from what the policies say of a micro-batch's views.

B completions, D views, C tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from weft_rl.config.rl import LossConfig
from weft_rl.diffusion.logprob_estimators import MaskedViews, token_estimate
from weft_rl.diffusion.policy_losses import (
    Normalizer,
    eubo,
    kl_k2_sequence,
    kl_k3,
    ppo_clip_loss,
    reinforce_loss,
    sequence_ratio,
    spg_loss,
)

# How an objective that is not named after its normaliser adds up; see surrogates.aggregate.
_NORMALIZERS: dict[str, Normalizer] = {
    "bnpo": "bnpo",
    "grpo": "grpo",
    "dr_grpo": "dr_grpo",
    "dapo": "dapo",
    "gspo": "grpo",
    "wd1": "group",
    "spg": "bnpo",
}
# Objectives with a ratio to the policy that sampled.
WITH_RATIO = ("bnpo", "grpo", "dr_grpo", "dapo", "gspo")


@dataclass(frozen=True)
class LossInputs:
    """What is known of a micro-batch in one pass over it."""

    advantages: Tensor  # (B,), or wd1's weights
    old: Tensor | None = None  # (B, C) log-probabilities of the sampling policy; None: today's
    reference: Tensor | None = None  # (B, C)
    chosen: Tensor | None = None  # (B, C) bool, tokens trained on; None: all
    held: Tensor | None = None  # (B, C) bool, tokens held to the sampling policy


@dataclass(frozen=True)
class TokenLoss:
    """A loss per token and what to report beside it; (B, C), or (B, 1) for whole completions."""

    loss: Tensor
    scored: Tensor  # (B, C) bool
    clip_ratio: Tensor | None  # bool, where a clip holds the gradient back
    kl: Tensor | None


def normalizer_of(objective: str) -> Normalizer:
    """How the objective's token losses become one number."""
    return _NORMALIZERS[objective]


def token_loss(
    objective: str,
    log_p: Tensor,
    views: MaskedViews,
    evidence: LossInputs,
    options: LossConfig,
    kl_coef: float,
) -> TokenLoss:
    """The objective's loss; log_p (B, D, C) of the views, by the policy that is trained."""
    weight, scored = views.weight, views.scored
    new = token_estimate(log_p, weight)
    old = new.detach() if evidence.old is None else evidence.old
    a, kept, divergence = evidence.advantages, None, None
    if objective == "wd1":
        loss = reinforce_loss(new, a)
    elif objective == "spg":
        upper = eubo(log_p, weight, options.spg_exponent, scored)
        loss = spg_loss(new, upper, a, options.spg_mixture)
    elif objective == "gspo":
        loss, kept = ppo_clip_loss(sequence_ratio(new, old, scored), a, options.clip_coef)
    else:
        loss, kept = ppo_clip_loss(torch.exp(new - old), a, options.clip_coef)
        if evidence.chosen is not None:
            loss = loss * evidence.chosen
        if evidence.held is not None:
            loss = loss + options.kl_cov_coef * (new - old).abs() * evidence.held
    if kl_coef and evidence.reference is not None:
        if options.kl_estimator == "k2_sequence":
            divergence = kl_k2_sequence(new, evidence.reference, scored)
        else:
            divergence = kl_k3(new, evidence.reference)
        loss = loss + kl_coef * divergence
    return TokenLoss(loss, scored, kept, divergence)
