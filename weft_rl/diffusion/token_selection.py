"""Selection of rollout tokens for the loss or for the KL to the sampling policy."""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_shape


def top_threshold(values: Tensor, share: float) -> Tensor:
    """Threshold of the top `share` of `values` (M,), at least one value; infinite if empty: ()."""
    if not len(values):
        return values.new_tensor(torch.inf)
    return values.topk(max(ceil(share * len(values)), 1)).values[-1]


def covariances(log_p: Tensor, advantages: Tensor, mean_log_p: float, mean_a: float) -> Tensor:
    """(log p - mean log p) (A - mean A) of each token: (B, C).

    log_p: (B, C). advantages: (B,). Means are over all loss tokens. An update lowers the entropy
    most where it is large. Source: Clip-Cov and KL-Cov."""
    require_shape("advantages", advantages, (len(log_p),))
    return (log_p - mean_log_p) * (advantages[:, None] - mean_a)


def entropy_mask(
    entropy: Tensor, loss_mask: Tensor, share: float, gather: Callable[[Tensor], Tensor]
) -> Tensor:
    """The `share` of the rollout's tokens with the highest entropy: (N, C) bool.

    entropy, loss_mask (bool): (N, C). gather: gathers values (M,) of all processes, so that the
    threshold does not depend on their number. Source: the 80/20 paper."""
    return loss_mask & (entropy >= top_threshold(gather(entropy[loss_mask]), share))


def kl_cov_mask(
    log_p: Tensor,
    advantages: Tensor,
    loss_mask: Tensor,
    share: float,
    gather: Callable[[Tensor], Tensor],
) -> Tensor:
    """The `share` of the rollout's tokens with the highest covariance: (N, C) bool.

    log_p (of the sampling policy), loss_mask (bool): (N, C). advantages: (N,). gather: as for
    entropy_mask. Source: KL-Cov."""
    mean_log_p = float(gather(log_p[loss_mask]).mean())
    mean_a = float(gather(advantages[:, None].expand_as(log_p)[loss_mask]).mean())
    values = covariances(log_p, advantages, mean_log_p, mean_a)
    return loss_mask & (values >= top_threshold(gather(values[loss_mask]), share))
