r"""Rewards for MATH problems: the answer in \boxed{}, compared by its letters, then by its value.

Example: the answer \frac{3}{2} is also right as "1.5", "3/2" and "\dfrac32"."""

import re
from functools import lru_cache
from typing import Any

from weft_rl.rewards.answers.compare import Relation, compact, read, same
from weft_rl.rewards.answers.final_answer import LONGEST, normalized
from weft_rl.rewards.answers.judge import is_solved
from weft_rl.rewards.extract import answer_text

# Nothing is computed in these, so that no formula of the problem is repeated.
_PLAIN = re.compile(r"[-0-9., ()\[\]{}$%\\]*|[A-Za-z ]*|\\text\{[^{}]*\}")


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
    given, answer = given.strip(), answer.strip()
    if not given or not answer:
        return False
    given, answer = normalized(given), normalized(answer)
    if given == answer or compact(given) == compact(answer):
        return True
    if len(given) > LONGEST or len(answer) > LONGEST:
        return False
    equal = _at_once(given, answer)
    if equal is False or (equal and (not problem or _PLAIN.fullmatch(given))):
        return equal
    return bool(is_solved(answer, given, problem))


class _Undecided(Exception):
    """A formula has to be parsed."""


def _undecided(key: str, given: str, how: Relation) -> bool:
    raise _Undecided


@lru_cache(maxsize=4096)
def _at_once(given: str, answer: str) -> bool | None:
    """Whether two answers are equal as far as numbers and words tell; None where they do not."""
    try:
        return same(*read(answer, given), _undecided)
    except _Undecided:
        return None
    except RecursionError:  # nested too deep for an answer
        return False
