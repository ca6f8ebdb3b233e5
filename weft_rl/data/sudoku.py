"""4x4 Sudoku with unique solutions; the split holds out entire orbits under digit relabeling."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from weft_rl.data.records import Split
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS, SIZE, solved_grids
from weft_rl.seeding import seed_for

_HELD_OUT_EVERY = 4  # every fourth orbit, ordered by smallest grid: 3 of 12 orbits, 72 of 288 grids


@cache
def latin_squares() -> tuple[str, ...]:
    """Return all 576 4x4 Latin squares in order, row by row."""
    squares = [""]
    rows = ["".join(row) for row in permutations(DIGITS)]
    for _ in range(SIZE):
        squares = [
            square + row
            for square in squares
            for row in rows
            if all(row[i % SIZE] != digit for i, digit in enumerate(square))
        ]
    return tuple(squares)


def orbit(grid: str) -> str:
    """Return the smallest relabeling of a grid: digits renamed in order of appearance."""
    names: dict[str, str] = {}
    return "".join(names.setdefault(digit, str(len(names) + 1)) for digit in grid)


@cache
def held_out_orbits() -> frozenset[str]:
    """Return the three test orbits, each by its smallest grid."""
    return frozenset(sorted({orbit(grid) for grid in solved_grids()})[::_HELD_OUT_EVERY])


def is_held_out(grid: str) -> bool:
    """Return whether a solved grid belongs to the test split."""
    return orbit(grid) in held_out_orbits()


def fill_rows(puzzle: str, order: Callable[[list[str]], Sequence[str]] = sorted) -> str:
    """Fill each row's empty cells with its missing digits in `order`, from left to right."""
    grid = ""
    for start in range(0, CELLS, SIZE):
        row = puzzle[start : start + SIZE]
        lacking = iter(order([digit for digit in DIGITS if digit not in row]))
        grid += "".join(next(lacking) if clue == "0" else clue for clue in row)
    return grid


def generate(split: Split, count: int, seed: int, blanks: int = 8) -> list[dict[str, str]]:
    """Generate puzzles with unique solutions; the i-th depends only on (split, seed, blanks, i).

    Training repeats puzzles once all are used. blanks: empty cells, 1 to 12 (published: 8). Raises
    ValueError if the test split has too few puzzles."""
    puzzles = _puzzles(split, blanks)
    if split == "test" and count > len(puzzles):
        raise ValueError(f"count={count}: only {len(puzzles)} test puzzles have blanks={blanks}")
    rng = np.random.default_rng(seed_for(seed, "puzzle", split, blanks))
    order = np.resize(rng.permutation(len(puzzles)), count)
    fields = []
    for grid, empty in puzzles[order].tolist():
        solution = solved_grids()[grid]
        puzzle = "".join("0" if empty >> k & 1 else digit for k, digit in enumerate(solution))
        fields.append({"puzzle": puzzle, "solution": solution})
    return fields


@cache
def _puzzles(split: Split, blanks: int) -> NDArray[np.uint16]:
    """(N, 2) puzzles with unique solutions: grid index and 16-bit mask of empty cells."""
    rows = []
    for i, grid in enumerate(solved_grids()):
        if is_held_out(grid) == (split == "test"):
            masks = _unique_masks(orbit(grid), blanks)
            rows.append(np.stack([np.full_like(masks, i), masks], axis=1).astype(np.uint16))
    return np.concatenate(rows)


@cache
def _unique_masks(grid: str, blanks: int) -> NDArray[np.int64]:
    """(M,) masks of cells whose removal keeps the solution unique; equal within an orbit."""
    digits = np.array([[*map(int, each)] for each in solved_grids()])
    differs = digits != digits[solved_grids().index(grid)]
    differing = (differs * (1 << np.arange(CELLS))).sum(axis=1)
    masks = np.arange(1 << CELLS)
    masks = masks[np.bitwise_count(masks) == blanks]
    unique = ((~masks[:, None] & differing[differing > 0]) != 0).all(axis=1)
    return masks[unique]
