"""Rewards for 4x4 Sudoku, scored on the digits of the answer only."""

import re
from functools import lru_cache
from typing import Any

from weft_rl.rewards.extract import answer_text
from weft_rl.rewards.sudoku_grid import CELLS, completions, empty_cells, is_solved, keeps_clues

# "The 4x4 grid is:" has no cells
_SIZE = re.compile(r"(?<![0-9])[24] ?(?:x|X|\u00d7|\\times|by|-by-) ?[24](?![0-9])")


def answer_digits(completion: str) -> str | None:
    """Return the ASCII digits of the completion's answer, or None without an answer."""
    answer = answer_text(completion)
    if answer is None:
        return None
    return "".join(c for c in _SIZE.sub(" ", answer) if c in "0123456789")


def cells_right(digits: str, puzzle: str, solution: str) -> int:
    """Count empty cells filled with the solution's digit; missing digits are wrong."""
    filled = digits[:CELLS].ljust(CELLS, "0")
    return sum(filled[i] == solution[i] for i in empty_cells(puzzle))


def cell_accuracy(completion: str, puzzle: str, solution: str | None = None, **_: Any) -> float:
    """Return the share of empty cells filled with the solution's digits.

    puzzle: 16 characters, 0 for empty. solution: 16 digits, or None for the puzzle's solution
    closest to the answer. Digits after the 16th are ignored, missing ones are wrong, clues do not
    count. Returns 0 without an answer, empty cells or a solution. Source: d1's Sudoku reward."""
    digits = answer_digits(completion)
    empty = empty_cells(puzzle)
    if digits is None or not empty or len(puzzle) != CELLS:
        return 0.0
    keys = solutions(puzzle) if solution is None else (solution,)
    right = [cells_right(digits, puzzle, key) for key in keys if len(key) == CELLS]
    return max(right, default=0) / len(empty)


reward = cell_accuracy


@lru_cache(maxsize=4096)
def solutions(puzzle: str) -> tuple[str, ...]:
    """Return every solution of a puzzle in order. Cached, because puzzles repeat during a run."""
    return tuple(completions(puzzle))


def exact(completion: str, puzzle: str, solution: str | None = None, **_: Any) -> float:
    """Return 1 if the 16 digits solve the puzzle with the given solution, if any, else 0."""
    digits = answer_digits(completion)
    if digits is None or not is_solved(digits) or not keeps_clues(puzzle, digits):
        return 0.0
    return float(solution is None or digits == solution)


def valid(completion: str, puzzle: str, **_: Any) -> float:
    """Return 1 for any solved grid with the clues (124 of 500 puzzles have several), else 0."""
    return exact(completion, puzzle)


def flags(completion: str, puzzle: str, solution: str) -> list[str]:
    """Return diagnostic flags of an answer: "no answer", "length", "clue", "other solution".

    length: not 16 digits; clue: a clue was changed; other solution: valid, but not the record's."""
    digits = answer_digits(completion)
    if digits is None:
        return ["no answer"]
    if len(digits) != CELLS:
        return ["length"]
    if not keeps_clues(puzzle, digits):
        return ["clue"]
    return ["other solution"] if is_solved(digits) and digits != solution else []
