"""Advantages: how much better a completion was than others for its prompt.

N completions, the G of a prompt next to each other."""

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["mean", "leave_one_out", "z_score"]
# keeps a group of nearly equal rewards from being blown up; TRL's value
_LEAST_DEVIATION = 1e-4


def group_advantages(rewards: Tensor, group: int, baseline: Baseline = "mean") -> Tensor:
    """Rewards less what is expected of their group: (N,).

    rewards (N,), or rewards already less their group's mean; group: G >= 2. baseline: "mean"
    subtracts the group's mean (d1); "leave_one_out" the mean of the others (coupled-GRPO, ESPO);
    "z_score" divides by the group's standard deviation as well (GRPO).
    Raises ValueError when G does not divide N."""
    centred = _grouped(rewards, group)
    centred = centred - centred.mean(1, keepdim=True)
    if baseline == "leave_one_out":
        centred = centred * (group / (group - 1))
    elif baseline == "z_score":
        centred = centred / (centred.std(1, keepdim=True) + _LEAST_DEVIATION)
    return centred.flatten()


def wd1_weights(advantages: Tensor, group: int, temperature: float = 1.0) -> Tensor:
    """Softmax of the advantages less softmax of their opposites, within each group: (N,).

    Sums to 0 in a group, and is 0 where all are equal. wd1's own code takes the softmax over the
    local batch, which mixes prompts where a batch holds several. Source: wd1."""
    scaled = _grouped(advantages, group) / temperature
    return (scaled.softmax(1) - (-scaled).softmax(1)).flatten()


def equal_groups(rewards: Tensor, group: int) -> Tensor:
    """Whether all rewards of a group are the same, so that it teaches nothing: (N / G,) bool."""
    grouped = _grouped(rewards, group)
    return torch.isclose(grouped, grouped[:, :1]).all(1)


def _grouped(values: Tensor, group: int) -> Tensor:
    if values.dim() != 1 or len(values) % group:
        raise ValueError(f"{tuple(values.shape)} values are no groups of {group}")
    return values.view(-1, group)
