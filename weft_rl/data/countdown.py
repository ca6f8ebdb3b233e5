"""Countdown: reach a target with three numbers, each used once; generator and split."""

from fractions import Fraction
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from weft_rl.data.files import read_rows
from weft_rl.data.records import PACKAGED, Split, countdown_fields
from weft_rl.seeding import seed_for

PUBLISHED = "countdown_cd3_test.jsonl"
# One problem in five is held out, by a hash of its content: the splits are disjoint.
_TEST_SHARE = 5
_MOST_DRAWS = 10_000  # draws before the limits are considered too narrow


def is_held_out(numbers: list[int], target: int) -> bool:
    """Return whether a problem belongs to the test split; number order is irrelevant."""
    if (tuple(sorted(numbers)), target) in _published():
        return True
    content = repr((sorted(numbers), target)).encode()
    return int.from_bytes(blake2b(content, digest_size=4).digest(), "big") % _TEST_SHARE == 0


@cache
def _published() -> frozenset[tuple[tuple[int, ...], int]]:
    fields = [countdown_fields(row) for _, row in read_rows(PACKAGED / PUBLISHED)]
    return frozenset((tuple(sorted(row["numbers"])), row["target"]) for row in fields)


@lru_cache(maxsize=4096)
def reachable(a: int, b: int, c: int) -> tuple[int, ...]:
    """Return every positive integer that + - * / make of three numbers, each used once."""
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
    """Generate solvable problems with numbers and targets up to the limits.

    A training problem depends only on (seed, index, limits). Test problems are distinct; a longer
    list extends the shorter one. Raises ValueError if the limits allow too few problems."""
    problems: list[dict[str, Any]] = []
    seen: set[tuple[tuple[int, ...], int]] = set()
    for i in range(count):
        rng = np.random.default_rng(seed_for(seed, "countdown", split, i))
        for _ in range(_MOST_DRAWS):
            numbers = rng.integers(1, max_number + 1, 3).tolist()
            key = tuple(sorted(numbers))
            targets = [
                target
                for target in reachable(*key)
                if target <= max_target
                and is_held_out(numbers, target) == (split == "test")
                and (key, target) not in seen
            ]
            if targets:
                break
        else:
            raise ValueError(
                f"max_number={max_number}, max_target={max_target}: too few {split} problems for "
                f"another one after {i}; raise a limit"
            )
        target = targets[rng.integers(len(targets))]
        if split == "test":
            seen.add((key, target))
        problems.append({"numbers": numbers, "target": target})
    return problems
