"""Rules of 4x4 Sudoku grids as text, for rewards and puzzle generation."""

from functools import cache, lru_cache
from itertools import permutations, product

SIZE = 4
CELLS = 16
DIGITS = "1234"


def is_solved(grid: str) -> bool:
    """Return whether 16 characters are a solved grid: 1 to 4 once per row, column and box."""
    if len(grid) != CELLS:
        return False
    rows = [grid[i : i + SIZE] for i in range(0, CELLS, SIZE)]
    columns = [grid[i::SIZE] for i in range(SIZE)]
    boxes = [grid[i : i + 2] + grid[i + SIZE : i + SIZE + 2] for i in (0, 2, 8, 10)]
    return all(sorted(unit) == list(DIGITS) for unit in (*rows, *columns, *boxes))


def keeps_clues(puzzle: str, grid: str) -> bool:
    """Return whether the grid keeps every clue of the puzzle."""
    return len(puzzle) == len(grid) and all(
        clue not in DIGITS or clue == digit for clue, digit in zip(puzzle, grid, strict=True)
    )


@lru_cache(maxsize=4096)  # puzzles repeat during a run
def empty_cells(puzzle: str) -> tuple[int, ...]:
    """Return the indices, row by row, of cells without a digit from 1 to 4."""
    return tuple(i for i, clue in enumerate(puzzle) if clue not in DIGITS)


def completions(puzzle: str) -> list[str]:
    """Return every solved grid that keeps the clues of a 16-character puzzle, in order."""
    return [grid for grid in solved_grids() if keeps_clues(puzzle, grid)]


@cache
def solved_grids() -> tuple[str, ...]:
    """Return all 288 solved grids, in order."""
    rows = ["".join(row) for row in permutations(DIGITS)]
    # two rows: each box holds each digit once
    bands = [a + b for a, b in product(rows, rows) if not {*a[:2]} & {*b[:2]}]
    return tuple(a + b for a, b in product(bands, bands) if is_solved(a + b))
