"""Reward for Countdown: an expression of given numbers, each used once, with a given value.

Example: numbers [2, 3, 4], target 5: "<answer>2*4-3</answer>" is right."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from weft_rl.rewards.arithmetic import NotAnExpression, evaluate
from weft_rl.rewards.extract import answer_text

# Source: d1's Countdown reward, for an answer in the right place that is wrong.
_ATTEMPT = 0.1


def is_right(expression: str, numbers: Sequence[int], target: int, *, lenient: bool) -> bool:
    """Return whether the expression uses each number once and has exactly the target's value.

    lenient: one "= target" may follow, as d1's evaluation allows; the prompt forbids it."""
    left, equals, right = expression.partition("=")
    try:
        value, used = evaluate(left)
        if equals and (not lenient or evaluate(right) != (target, [abs(target)])):
            return False
    except NotAnExpression:
        return False
    return value == target and Counter(used) == Counter(numbers)


def reward(completion: str, numbers: Sequence[int], target: int, **_: Any) -> float:
    """Return 1 for a right expression alone, 0.1 for any other answer, 0 without an answer."""
    answer = answer_text(completion)
    if answer is None:
        return 0.0
    return 1.0 if is_right(answer, numbers, target, lenient=False) else _ATTEMPT


def exact(completion: str, numbers: Sequence[int], target: int, **_: Any) -> float:
    """Return 1 for a right expression, with or without "= target" behind it, else 0."""
    answer = answer_text(completion)
    return float(answer is not None and is_right(answer, numbers, target, lenient=True))
