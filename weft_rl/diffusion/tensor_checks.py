"""Checks for the first lines of a formula, and for what it must not let pass."""

from collections.abc import Sequence

from torch import Tensor


def require_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless `value` has exactly this shape.

    (B,) against (B, 1) would broadcast into a wrong number instead of an error."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")


def require_everywhere(name: str, holds: Tensor, rule: str) -> None:
    """Raise ValueError with the place where `holds` (bool, any shape) is first False.

    The place's first number is the row, from which a caller knows the record."""
    if not holds.all():
        place = (~holds).nonzero()[0].tolist()
        raise ValueError(f"{name}{place}: {rule}")
