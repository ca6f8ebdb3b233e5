"""Countdown: reach a target with three numbers, each used once; generated with a split."""

from fractions import Fraction
from functools import cache, lru_cache
from hashlib import blake2b
from importlib import resources
from typing import Any

import numpy as np

from weft_rl.data.files import read_rows
from weft_rl.data.records import countdown_fields
from weft_rl.data.task_file import Split
from weft_rl.seeding import seed_for

PUBLISHED = "countdown_cd3_test.jsonl"  # the test set of the package; see files/PROVENANCE.md
# One problem in five is held out, by a hash of its content: no problem is in both splits.
_TEST_SHARE = 5
# Draws before giving up on another problem: limits this narrow have too few for the count.
_MOST_DRAWS = 10_000


def is_held_out(numbers: list[int], target: int) -> bool:
    """Whether a problem belongs to the test split, as the published ones do.

    The order of its numbers does not matter."""
    key = (tuple(sorted(numbers)), target)
    if key in _published():
        return True
    content = repr((sorted(numbers), target)).encode()
    return int.from_bytes(blake2b(content, digest_size=4).digest(), "big") % _TEST_SHARE == 0


@cache
def _published() -> frozenset[tuple[tuple[int, ...], int]]:
    """The published test problems: sorted numbers and target."""
    file = resources.files("weft_rl.data") / "files" / PUBLISHED
    with resources.as_file(file) as path:
        fields = [countdown_fields(row) for _, row in read_rows(path)]
    return frozenset((tuple(sorted(row["numbers"])), row["target"]) for row in fields)


@lru_cache(maxsize=4096)
def reachable(a: int, b: int, c: int) -> tuple[int, ...]:
    """Every positive integer that + - * / and parentheses make of three numbers, each used once."""
    values = set()
    for one, two, last in ((a, b, c), (a, c, b), (b, c, a)):
        for pair in _combined(Fraction(one), Fraction(two)):
            values |= _combined(pair, Fraction(last))
    return tuple(sorted(int(value) for value in values if value > 0 and value.denominator == 1))


def _combined(left: Fraction, right: Fraction) -> set[Fraction]:
    quotients = {one / two for one, two in ((left, right), (right, left)) if two}
    return {left + right, left - right, right - left, left * right} | quotients


def generate(
    split: Split, count: int, seed: int, max_number: int = 9, max_target: int = 99
) -> list[dict[str, Any]]:
    """Fields of solvable problems: three numbers up to max_number, targets up to max_target.

    A training problem depends on (seed, its index, the limits) only; test problems are distinct, so
    one depends on those before it too, and a longer list starts with the shorter one. The defaults
    suit a model that reads digit by digit. Raises ValueError for limits that leave too few problems
    for the count."""
    problems: list[dict[str, Any]] = []
    seen: set[tuple[tuple[int, ...], int]] = set()
    for i in range(count):
        numbers, target = _draw(split, seed, i, (max_number, max_target), seen)
        if split == "test":
            seen.add((tuple(sorted(numbers)), target))
        problems.append({"numbers": numbers, "target": target})
    return problems


def _draw(
    split: Split,
    seed: int,
    index: int,
    limits: tuple[int, int],
    seen: set[tuple[tuple[int, ...], int]],
) -> tuple[list[int], int]:
    """Numbers and target of a problem of the split that has not been seen."""
    max_number, max_target = limits
    rng = np.random.default_rng(seed_for(seed, "countdown", split, index))
    for _ in range(_MOST_DRAWS):
        numbers = [int(number) for number in rng.integers(1, max_number + 1, 3)]
        key = tuple(sorted(numbers))
        targets = [
            target
            for target in reachable(*key)
            if target <= max_target
            and is_held_out(numbers, target) == (split == "test")
            and (key, target) not in seen
        ]
        if targets:
            return numbers, targets[rng.integers(len(targets))]
    raise ValueError(
        f"max_number={max_number}, max_target={max_target}: too few {split} problems for another "
        f"one after {index}; raise a limit"
    )
