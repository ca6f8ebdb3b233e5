"""The precision sums are made in."""

import torch
from torch import Tensor


def widen(value: Tensor) -> Tensor:
    """float64 as it is, anything narrower as float32.

    A bfloat16 model's logits are too coarse to sum over a vocabulary; a test that works in float64
    must not lose it on the way."""
    return value if value.dtype == torch.float64 else value.float()
