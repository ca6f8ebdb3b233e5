"""Group-relative advantages of N completions; the G completions of a prompt are adjacent."""

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["mean", "leave_one_out", "z_score"]
# TRL's value: floor of the standard deviation of nearly equal rewards
_MIN_DEVIATION = 1e-4


def group_advantages(rewards: Tensor, group: int, baseline: Baseline = "mean") -> Tensor:
    """Rewards minus the baseline of their group: (N,).

    rewards: (N,), raw or already centered per group. group: G >= 2. baseline: "mean" subtracts the
    group mean (d1). "leave_one_out" subtracts the mean of the others (coupled-GRPO, ESPO).
    "z_score" also divides by the group's standard deviation (GRPO). Raises ValueError if G does not
    divide N."""
    centered = _grouped(rewards, group)
    centered = centered - centered.mean(1, keepdim=True)
    if baseline == "leave_one_out":
        centered = centered * (group / (group - 1))
    elif baseline == "z_score":
        centered = centered / (centered.std(1, keepdim=True) + _MIN_DEVIATION)
    return centered.flatten()


def wd1_weights(advantages: Tensor, group: int, temperature: float = 1.0) -> Tensor:
    """softmax(A / temperature) - softmax(-A / temperature) within each group: (N,).

    Sums to 0 per group; 0 for equal advantages. wd1's code takes the softmax over the local batch,
    which mixes the prompts of a batch. Source: wd1."""
    scaled = _grouped(advantages, group) / temperature
    return (scaled.softmax(1) - (-scaled).softmax(1)).flatten()


def equal_groups(rewards: Tensor, group: int) -> Tensor:
    """Whether all rewards of a group are equal, which gives a zero gradient: (N / G,) bool."""
    grouped = _grouped(rewards, group)
    return torch.isclose(grouped, grouped[:, :1]).all(1)


def _grouped(values: Tensor, group: int) -> Tensor:
    if values.dim() != 1 or len(values) % group:
        raise ValueError(f"values of shape {tuple(values.shape)} do not form groups of {group}")
    return values.view(-1, group)
