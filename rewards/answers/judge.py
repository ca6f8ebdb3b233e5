"""Comparison of LaTeX answers by value in processes of their own, which can be ended at any time.

math-verify limits its time by signals, which only reach a main thread and wait for the end of a
long operation on integers. Here nothing waits: it works in threads and in forked processes too.
A batch's answers share one limit of wall time, see `judging`."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from weft_rl.rewards.answers.pool import WALL_S, Pair, pool

# On top of WALL_S, for each answer of a batch: ten times what a usual one takes.
_ANSWER_S = 0.1


@dataclass
class Judging:
    """A batch of answers: how many had no verdict so far, and the wall time that is left."""

    left_s: float
    undecided: int = 0
    collected: list[Pair] | None = None  # while pairs are only collected


_judging: ContextVar[Judging | None] = ContextVar("judging", default=None)


@contextmanager
def judging(answers: int) -> Generator[Judging]:
    """Within it comparisons share a limit of wall time for so many answers.

    What is not reached in it is undecided, as is what takes too long or is too costly to read."""
    batch = Judging(WALL_S + _ANSWER_S * answers)
    token = _judging.set(batch)
    try:
        yield batch
    finally:
        _judging.reset(token)


def judge_ahead(batch: Judging, ask_all: Callable[[], object]) -> None:
    """Decide together all pairs that `ask_all` asks `is_solved` for, which then has them ready."""
    batch.collected = []
    try:
        ask_all()
    finally:
        pairs, batch.collected = batch.collected, None
    _judge(batch, pairs)


def judge_pairs(pairs: Sequence[Pair], limit_s: float = WALL_S) -> list[bool | None]:
    """`is_solved` of each pair, by several processes where it takes long; None for what is not
    decided within limit_s of wall time, the start of the first process aside."""
    return pool().ask(pairs, limit_s)[0]


def is_solved(right: str, given: str, problem: str) -> bool | None:
    """Whether two LaTeX answers have the same value and the given one is not the problem's formula.

    right, given: of any length; problem: may be empty. None when the given one is too costly to
    read, and when math-verify cannot say in time. Raises RuntimeError when no process starts."""
    pair, batch = (right, given, problem), _judging.get()
    if batch is None:
        return judge_pairs([pair])[0]
    if batch.collected is not None:
        batch.collected.append(pair)
        return None
    (verdict,) = _judge(batch, [pair])
    batch.undecided += verdict is None
    return verdict


def _judge(batch: Judging, pairs: Sequence[Pair]) -> list[bool | None]:
    verdicts, seconds = pool().ask(pairs, batch.left_s)
    batch.left_s -= seconds
    return verdicts
