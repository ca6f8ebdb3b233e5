"""Which tokens a loss is made of, or held back at: from their entropies and covariances."""

from math import ceil

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_shape


def top_threshold(values: Tensor, share: float) -> Tensor:
    """The value that a `share` of `values` (M,) reaches, at least one of them: ().

    Infinite when there are none. Ties may bring in more."""
    if not len(values):
        return values.new_tensor(torch.inf)
    return values.topk(max(ceil(share * len(values)), 1)).values[-1]


def covariances(log_p: Tensor, advantages: Tensor, mean_log_p: float, mean_a: float) -> Tensor:
    """Each token's part of the covariance of log-probability and advantage: (B, C).

    log_p (B, C); advantages (B,); the means over all scored tokens. Where it is large an update
    lowers the policy's entropy most. Source: the entropy mechanism paper (Clip-Cov, KL-Cov)."""
    require_shape("advantages", advantages, (len(log_p),))
    return (log_p - mean_log_p) * (advantages[:, None] - mean_a)
