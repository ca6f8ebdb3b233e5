"""Rule-based rewards: f(completion, **record) -> float in [0, 1], pure Python, total."""

from rewards import countdown, sudoku

__all__ = ["countdown", "sudoku"]
