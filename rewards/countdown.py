"""Countdown rewards: an expression that uses each given number once and equals the target."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from weft_rl.rewards.arithmetic import NotAnExpression, evaluate
from weft_rl.rewards.extract import answer_text

_ATTEMPT = 0.1  # source: d1's Countdown reward for a wrong answer in the right place


def is_right(expression: str, numbers: Sequence[int], target: int, *, lenient: bool) -> bool:
    """Return whether the expression uses each number once and equals the target exactly.

    lenient: allow one trailing "= target", as in d1's evaluation; the prompt forbids it."""
    left, equals, right = expression.partition("=")
    try:
        value, used = evaluate(left)
        if equals and (not lenient or evaluate(right) != (target, [abs(target)])):
            return False
    except NotAnExpression:
        return False
    return value == target and Counter(used) == Counter(numbers)


def reward(completion: str, numbers: Sequence[int], target: int, **_: Any) -> float:
    """Return 1 for a correct expression alone, 0.1 for any other answer, 0 without an answer."""
    answer = answer_text(completion)
    if answer is None:
        return 0.0
    return 1.0 if is_right(answer, numbers, target, lenient=False) else _ATTEMPT


def exact(completion: str, numbers: Sequence[int], target: int, **_: Any) -> float:
    """Return 1 for a correct expression, optionally followed by "= target", else 0."""
    answer = answer_text(completion)
    return float(answer is not None and is_right(answer, numbers, target, lenient=True))
