"""RL losses, log-probability estimators and their valid combinations.

Formulas are in policy_losses and logprob_estimators. Does not import torch: help must load
quickly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

# Aggregation of token losses; see policy_losses.aggregate.
RLNorm = Literal["bnpo", "grpo", "dr_grpo", "dapo", "group"]
LossFormula = Literal["ppo_clip", "sequence_clip", "reinforce", "spg"]


@dataclass(frozen=True)
class Estimator:
    """Estimator of a completion's log-probability from masked views."""

    formula: str
    source: str
    # estimates an ELBO: single tokens have no probability
    is_bound: bool = False
    # the first view is fully masked, so a group with shared masks shares it
    shared_view: bool = False
    options: tuple[str, ...] = ()  # supported options of rl.masks


ESTIMATORS: Mapping[str, Estimator] = {
    "one_step": Estimator("log p(x_i | all masked)", "d1, diffu-GRPO", shared_view=True),
    "coupled": Estimator(
        "(log p(x_i | all masked) + log p(x_i | mask or its complement) / ratio) / 2",
        "coupled-GRPO",
        shared_view=True,
    ),
    "random_mask": Estimator(
        "mean of log p(x_i | random mask) over masks with x_i",
        "UniGRPO",
        options=("num_mc_samples",),
    ),
    "elbo": Estimator(
        "L / l sum over l masked tokens of log p(x_i | mask)",
        "LLaDA, ESPO, GDPO, SPG",
        is_bound=True,
        options=("num_mc_samples", "t_sampling", "complement", "blockwise"),
    ),
    "trace": Estimator(
        "log p(x_i | canvas before the step that unmasked it)",
        "TraceRL",
        shared_view=True,
        options=("num_mc_samples",),
    ),
}
_OF_TOKENS = tuple(name for name, each in ESTIMATORS.items() if not each.is_bound)
_BOUNDS = tuple(name for name, each in ESTIMATORS.items() if each.is_bound)


@dataclass(frozen=True)
class RLLoss:
    """A policy loss, before the KL term."""

    formula: LossFormula
    normalizer: RLNorm
    source: str
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    # alternatives to an invalid combination
    fix: str = ""

    @property
    def has_ratio(self) -> bool:
        """Whether the loss needs the log-probabilities of the sampling policy."""
        return self.formula in ("ppo_clip", "sequence_clip")

    @property
    def per_token(self) -> bool:
        """Whether the loss is per token, so that tokens can be selected."""
        return self.formula == "ppo_clip"


_CLIP_FIX = (
    "a bound has no probability of single tokens to clip the ratio of; use rl.preset=spg "
    "rl.loss_type=spg, or rl.loss_type=gspo rl.loss.kl_estimator=k2_sequence, or rl.loss_type=wd1 "
    "rl.loss.kl_estimator=k2_sequence"
)
_SPG_FIX = (
    "needs a lower and an upper bound; use rl.preset=spg rl.estimator=elbo, or "
    "rl.estimator=elbo rl.loss.kl_estimator=k2_sequence"
)
RL_LOSSES: Mapping[str, RLLoss] = {
    "bnpo": RLLoss("ppo_clip", "bnpo", "d1", _OF_TOKENS, _CLIP_FIX),
    "grpo": RLLoss("ppo_clip", "grpo", "GRPO", _OF_TOKENS, _CLIP_FIX),
    "dr_grpo": RLLoss("ppo_clip", "dr_grpo", "Dr. GRPO", _OF_TOKENS, _CLIP_FIX),
    "dapo": RLLoss("ppo_clip", "dapo", "DAPO", _OF_TOKENS, _CLIP_FIX),
    "gspo": RLLoss("sequence_clip", "grpo", "GSPO; with elbo ESPO and GDPO"),
    "wd1": RLLoss("reinforce", "group", "wd1"),
    "spg": RLLoss("spg", "bnpo", "SPG", _BOUNDS, _SPG_FIX),
}
PER_TOKEN_LOSSES = tuple(name for name, loss in RL_LOSSES.items() if loss.per_token)

# Option types; type checkers do not accept an expression in Literal.
if TYPE_CHECKING:
    EstimatorName = LossName = str
else:
    EstimatorName, LossName = Literal[tuple(ESTIMATORS)], Literal[tuple(RL_LOSSES)]


def views_of(estimator: str, draws: int, complement: bool, steps: int) -> int:
    """Masked views per completion, each a row of a forward pass. steps: of the sampler."""
    match estimator:
        case "one_step":
            return 1
        case "coupled":
            return 3
        case "elbo":
            return draws * (1 + complement)
        case "trace":
            return min(draws, steps)
    return draws
