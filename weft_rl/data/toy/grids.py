"""4x4 grids beside Sudoku's, and a careless way with Sudoku's: what the generated worlds teach."""

from functools import cache

import numpy as np

from weft_rl.data.sudoku import fill_rows, latin_squares
from weft_rl.rewards.sudoku_grid import is_solved

Rng = np.random.Generator

BLANKS = 8  # empty cells, as in the published puzzles

# Share of the teacher's answers with each row's digits in ascending order; in random order it would
# be wrong about as often, but in no way that reward has to overcome.
_ASCENDING = 0.8


def careless_solution(puzzle: str, rng: Rng) -> str:
    """The puzzle with each row filled by the digits that it lacks, mostly in ascending order."""
    if rng.random() < _ASCENDING:
        return fill_rows(puzzle)
    return fill_rows(puzzle, lambda lacking: rng.permutation(lacking).tolist())


def blanked(grid: str, rng: Rng) -> str:
    """The grid with eight of its cells empty."""
    blanks = set(rng.choice(16, BLANKS, replace=False).tolist())
    return "".join("0" if i in blanks else digit for i, digit in enumerate(grid))


@cache
def _plain_latin_squares() -> tuple[str, ...]:
    """The 288 Latin squares that are no Sudoku grids: no test solution is one of them."""
    return tuple(square for square in latin_squares() if not is_solved(square))


def latin_grid(rng: Rng) -> str:
    """A grid whose rows and columns hold each digit once, but not all of its boxes."""
    squares = _plain_latin_squares()
    return squares[rng.integers(len(squares))]


def bands_grid(rng: Rng) -> str:
    """A grid whose rows and boxes hold each digit once, but not all of its columns.

    There are 8,928: too many to be remembered, unlike the Latin squares."""
    grid: list[str] = []
    for _ in range(2):
        upper = rng.permutation(list("1234"))
        # a box has two cells of the upper row, so its lower two hold the digits of the other two
        grid += [*upper, *rng.permutation(upper[2:]), *rng.permutation(upper[:2])]
    text = "".join(grid)
    return bands_grid(rng) if is_solved(text) else text


def stacks_grid(rng: Rng) -> str:
    """Columns and boxes: bands with rows and columns exchanged."""
    bands = bands_grid(rng)
    return "".join(bands[column::4] for column in range(4))
