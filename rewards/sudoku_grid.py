"""4x4 Sudoku grids as text: the rules that rewards and puzzle generation share."""

from functools import cache, lru_cache
from itertools import permutations

SIZE = 4
CELLS = 16
DIGITS = "1234"


def is_solved(grid: str) -> bool:
    """Whether 16 characters are a complete grid: each row, column and box holds 1 to 4 once."""
    if len(grid) != CELLS:
        return False
    rows = [grid[i : i + SIZE] for i in range(0, CELLS, SIZE)]
    columns = [grid[i::SIZE] for i in range(SIZE)]
    boxes = [grid[i : i + 2] + grid[i + SIZE : i + SIZE + 2] for i in (0, 2, 8, 10)]
    return all(sorted(unit) == list(DIGITS) for unit in (*rows, *columns, *boxes))


def keeps_clues(puzzle: str, grid: str) -> bool:
    """Whether the grid has the puzzle's digit wherever the puzzle has one."""
    return len(puzzle) == len(grid) and all(
        clue not in DIGITS or clue == digit for clue, digit in zip(puzzle, grid, strict=True)
    )


@lru_cache(maxsize=4096)  # a run scores a puzzle many times
def empty_cells(puzzle: str) -> tuple[int, ...]:
    """Places, row by row, that hold anything but a digit from 1 to 4."""
    return tuple(i for i, clue in enumerate(puzzle) if clue not in DIGITS)


def completions(puzzle: str) -> list[str]:
    """Every solved grid that keeps the clues of a 16-character puzzle, in order."""
    return [grid for grid in solved_grids() if keeps_clues(puzzle, grid)]


@cache
def solved_grids() -> tuple[str, ...]:
    """All 288 solved grids, in order."""
    # the twelve that start with 1234; every other grid is one of them with its digits renamed
    grids = [DIGITS]
    for at in range(SIZE, CELLS):
        grids = [grid + digit for grid in grids for digit in DIGITS if _fits(grid, at, digit)]
    names = [str.maketrans(DIGITS, "".join(order)) for order in permutations(DIGITS)]
    return tuple(sorted(grid.translate(renamed) for grid in grids for renamed in names))


def _fits(filled: str, at: int, digit: str) -> bool:
    """Whether the digit may follow the cells filled so far: no neighbour has it."""
    return not any(_sees(other, at) for other, there in enumerate(filled) if there == digit)


def _sees(one: int, other: int) -> bool:
    """Whether two cells share a row, a column or a box."""
    (row, column), (row2, column2) = divmod(one, SIZE), divmod(other, SIZE)
    return row == row2 or column == column2 or (row // 2, column // 2) == (row2 // 2, column2 // 2)
