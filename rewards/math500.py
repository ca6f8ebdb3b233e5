r"""MATH rewards: \boxed{} compared as text, then by value: "1.5" and "3/2" match \frac{3}{2}."""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from weft_rl.rewards.answers.compare import Relation, compact, same_answer
from weft_rl.rewards.answers.normalize import LONGEST, normalized
from weft_rl.rewards.extract import answer_text
from weft_rl.rewards.math_subprocess import WALL_S, Pair, pool

_ANSWER_S = 0.1  # wall time per answer of a batch, added to WALL_S: ten times the usual time
# Texts without operations cannot copy a formula of the problem.
_PLAIN = re.compile(r"[-0-9., ()\[\]{}$%\\]*|[A-Za-z ]*|\\text\{[^{}]*\}")


def exact(completion: str, answer: str, problem: str = "", **_: Any) -> float:
    """Return 1 if the completion's answer equals `answer` as text or by value, else 0.

    answer: LaTeX. problem: its text; copying its formula counts only if the key has that structure,
    so (2^10)+0 does not solve "Compute 2^{10}". Bases, units and names must agree where both state
    one. Comparisons that time out fall back to text."""
    given = answer_text(completion)
    return float(given is not None and is_right(given, answer, problem))


reward = exact


def is_right(given: str, answer: str, problem: str = "") -> bool:
    """Return whether a LaTeX answer is correct: after clean-up, or by value."""
    if not given.strip() or not answer.strip():
        return False
    given, answer = normalized(given), normalized(answer)
    if compact(given) == compact(answer):
        return True
    if len(given) > LONGEST or len(answer) > LONGEST:
        return False
    verdict = _without_sympy(given, answer)
    if verdict is False or (verdict and (not problem or _PLAIN.fullmatch(given))):
        return verdict
    return bool(is_equivalent(answer, given, problem))


class _UndecidedError(Exception):
    """A formula must be parsed."""


def _undecided(key: str, given: str, relation: Relation) -> bool:
    raise _UndecidedError


@lru_cache(maxsize=4096)
def _without_sympy(given: str, answer: str) -> bool | None:
    try:
        return same_answer(answer, given, _undecided)
    except _UndecidedError:
        return None


@dataclass
class Judging:
    """State of a batch: number of undecided answers and remaining wall time."""

    left_s: float
    undecided: int = 0
    collected: list[Pair] | None = None  # pairs to compare, while collecting


_judging: ContextVar[Judging | None] = ContextVar("judging", default=None)


@contextmanager
def judging(answers: int) -> Generator[Judging]:
    """Share one wall-time limit among comparisons; answers beyond it are undecided."""
    batch = Judging(WALL_S + _ANSWER_S * answers)
    token = _judging.set(batch)
    try:
        yield batch
    finally:
        _judging.reset(token)


def judge_ahead(batch: Judging, ask_all: Callable[[], object]) -> None:
    """Decide all pairs that `ask_all` passes to `is_equivalent` together and cache the verdicts."""
    batch.collected = []
    try:
        ask_all()
    finally:
        pairs, batch.collected = batch.collected, None
    batch.left_s -= pool().ask(pairs, batch.left_s)[1]


def is_equivalent(right: str, given: str, problem: str) -> bool | None:
    """Return whether two LaTeX answers have the same value and `given` solves the problem.

    problem: may be empty; copying its formula solves nothing. None: too costly or timed out. Raises
    RuntimeError or OSError if no worker starts."""
    pair, batch = (right, given, problem), _judging.get()
    if batch is None:
        return pool().ask([pair], WALL_S)[0][0]
    if batch.collected is not None:
        batch.collected.append(pair)
        return None
    (verdict,), seconds = pool().ask([pair], batch.left_s)
    batch.left_s -= seconds
    batch.undecided += verdict is None
    return verdict
