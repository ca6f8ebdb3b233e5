"""Checks for the first lines of a formula, and the dtype that sums are made in."""

from collections.abc import Sequence

import torch
from torch import Tensor


class NonFiniteError(ValueError):
    """NaN, infinity, or a negative rate, from which no loss can be computed."""


def require_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless `value` has exactly this shape.

    (B,) against (B, 1) would broadcast into a wrong number instead of an error."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")


def require_everywhere(
    name: str, holds: Tensor, rule: str, error: type[ValueError] = ValueError
) -> None:
    """Raise `error` with the index where `holds` (bool, any shape) is first False.

    The first number of the index is the row."""
    if not holds.all():
        index = (~holds).nonzero()[0].tolist()
        raise error(f"{name}{index}: {rule}")


def widen(value: Tensor) -> Tensor:
    """Return float64 as it is, anything narrower as float32.

    A bfloat16 model's logits are too coarse to sum over a vocabulary."""
    return value if value.dtype == torch.float64 else value.float()
