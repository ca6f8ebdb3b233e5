"""Shape checks for the first lines of a formula."""

from collections.abc import Sequence

from torch import Tensor


def require_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless `value` has exactly this shape.

    (B,) against (B, 1) would broadcast into a wrong number instead of an error."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
