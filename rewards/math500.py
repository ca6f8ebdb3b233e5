r"""Rewards for MATH problems: the answer in \boxed{}, compared by its letters, then by its value.

Example: the answer \frac{3}{2} is also right as "1.5", "3/2" and "\dfrac32"."""

from typing import Any

from rewards.extract import answer_text
from rewards.math_labels import contradicts
from rewards.math_process import is_solved
from rewards.strict_math import same_text

# The longest gold answer of MATH-500 has 53 characters; sympy's time grows fast with length.
_LONGEST = 300


def exact(completion: str, answer: str, problem: str = "", **_: Any) -> float:
    """1 if the completion's answer equals the given one, as text or by value; else 0.

    answer: LaTeX. problem: its text; one of its formulas, however it is spelled or padded, is an
    answer only when the given one is built like that, since "Compute 2^{10}" is not solved by
    (2^10)+0. Where both state a base, a unit or a name these agree. When math-verify does not
    decide in time, the text alone counts."""
    given = answer_text(completion)
    return float(given is not None and is_right(given, answer, problem))


# The whole of the correctness reward; how an answer is presented is for rewards.format.
reward = exact


def is_right(given: str, answer: str, problem: str = "") -> bool:
    """Whether a LaTeX answer equals the right one: after clean-up, or else in value, solved."""
    given, answer = given.strip()[: _LONGEST + 1], answer.strip()
    if not given or not answer or len(given) > _LONGEST or len(answer) > _LONGEST:
        return bool(given) and given == answer
    if contradicts(given, answer):
        return False
    if same_text(given, answer):
        return True
    return bool(is_solved(_plain(answer), _plain(given), problem))


def _plain(text: str) -> str:
    """Without dollar signs, between which math-verify expects it."""
    return text.replace(r"\$", "").replace("$", "")
