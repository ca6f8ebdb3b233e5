"""Rule-based rewards: f(completion, **record) -> float in [0, 1], pure Python, total."""

from weft_rl.rewards import countdown, format, gsm8k, math500, sudoku

__all__ = ["countdown", "format", "gsm8k", "math500", "sudoku"]
