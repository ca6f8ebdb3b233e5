"""Input checks and accumulation dtype of the formulas."""

from collections.abc import Sequence

import torch
from torch import Tensor

# transformers' label of ignored tokens
IGNORED = -100


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


def checked_answer(
    input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention mask (B, L) long, 1 everywhere by default, and answer tokens (B, L) bool.

    labels: (B, L), -100 outside the answer. Raises ValueError for mismatched shapes, for labels
    that are neither -100 nor the input id, and for a row without an answer."""
    require_shape("labels", labels, input_ids.shape)
    holds = (labels == IGNORED) | (labels == input_ids)
    require_everywhere("labels", holds, "must be -100 or the input id: nothing is shifted")
    visible = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
    require_shape("attention_mask", visible, input_ids.shape)
    answer = (labels != IGNORED) & visible.bool()
    require_everywhere("labels", answer.any(-1), "the row has no answer, only -100")
    return visible, answer


def widen(value: Tensor) -> Tensor:
    """Return float64 unchanged, else float32: bfloat16 is too coarse to sum over a vocabulary."""
    return value if value.dtype == torch.float64 else value.float()
