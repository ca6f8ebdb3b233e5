"""Input checks and accumulation dtype of the formulas."""

from collections.abc import Sequence

import torch
from torch import Tensor


class NonFiniteError(ValueError):
    """A NaN, infinite or negative value that makes the loss undefined."""


def require_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless `value` has this shape; (B,) would broadcast against (B, 1)."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")


def require_everywhere(
    name: str, holds: Tensor, rule: str, error: type[ValueError] = ValueError
) -> None:
    """Raise `error` with the index (row first) where `holds` (bool, any shape) is first False."""
    if not holds.all():
        index = (~holds).nonzero()[0].tolist()
        raise error(f"{name}{index}: {rule}")


def require_labels(labels: Tensor, input_ids: Tensor) -> None:
    """Raise ValueError unless labels (B, L) are -100 or the input ids, not the next tokens."""
    require_shape("labels", labels, input_ids.shape)
    holds = (labels == -100) | (labels == input_ids)
    require_everywhere("labels", holds, "must be -100 or the input id: nothing is shifted")


def widen(value: Tensor) -> Tensor:
    """Return float64 unchanged, else float32: bfloat16 is too coarse to sum over a vocabulary."""
    return value if value.dtype == torch.float64 else value.float()
