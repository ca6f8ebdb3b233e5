"""What the tiny model is trained on: a sloppy teacher for pretraining, clean traces for cold start.

Pretraining mixes Sudoku solved by a teacher that looks at rows and columns only with other small
tasks, and leaves the tags away in a share of the answers. Cold start has no Sudoku in it. So there
is something left to learn: the format, and then the boxes."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from rewards.grid import is_solved
from weft_rl.data.prompts import CELL_NAMES, named_cells, tagged_answer
from weft_rl.data.sudoku import generate, is_held_out, latin_squares
from weft_rl.data.traces import Trace
from weft_rl.seeding import seed_for

Rng = np.random.Generator
# A task's prompt, its reasoning and its answer
Solved = tuple[str, str, str]

# Share of pretraining answers without tags: the format is left for the cold start to settle.
_UNTAGGED = 0.5
_BLANKS = 6
# Named in the reasoning; with 16 spaced answer cells and the tags they fill the 44-token canvas.
_NAMED_CELLS = 4
_SHOWN_DIGITS = 5  # of a sorted or reversed list, before the answer
_PRETRAINING_MIX = {
    "sudoku": 0.3,
    "latin": 0.15,
    "rows": 0.08,
    "columns": 0.15,
    "boxes": 0.14,
    "chain": 0.06,
    "order": 0.06,
    "countdown": 0.06,
}
_COLD_START_MIX = {"latin": 0.2, "boxes": 0.3, "chain": 0.25, "order": 0.25}
_UNITS = {
    "Rows": [range(i, i + 4) for i in (0, 4, 8, 12)],
    "Columns": [range(i, 16, 4) for i in range(4)],
    "Boxes": [(i, i + 1, i + 4, i + 5) for i in (0, 2, 8, 10)],
}


@cache
def _plain_latin_squares() -> tuple[str, ...]:
    """The 288 Latin squares that are no Sudoku grids: no test solution is one of them."""
    return tuple(square for square in latin_squares() if not is_solved(square))


def first_cells(puzzle: str, answer: str) -> str:
    """The first empty cells with their digits: " r1c2=4 r1c3=1 ..."."""
    empty = [i for i, clue in enumerate(puzzle) if clue == "0"][:_NAMED_CELLS]
    return "".join(f" {CELL_NAMES[i]}={answer[i]}" for i in empty)


def _grid_task(name: str, puzzle: str, answer: str) -> Solved:
    # digits apart: answer and prompt then have the same stride, and a cell is always equally far
    # from its clue, which is all that rotary positions can tell
    return f"{name}:{named_cells(puzzle)}", first_cells(puzzle, answer), " ".join(answer)


def sloppy_solution(puzzle: str, rng: Rng) -> str:
    """The puzzle filled cell by cell in random order with digits new to row and column, whatever
    the boxes hold. A dead end takes any digit. Never a grid that is held out for testing."""
    while True:
        cells = list(puzzle)
        empty = [i for i, digit in enumerate(puzzle) if digit == "0"]
        for i in rng.permutation(empty):
            row, column = i // 4 * 4, i % 4
            used = {*cells[row : row + 4], *cells[column::4]}
            open_digits = [digit for digit in "1234" if digit not in used] or list("1234")
            cells[i] = open_digits[rng.integers(len(open_digits))]
        answer = "".join(cells)
        if not (is_solved(answer) and is_held_out(answer)):
            return answer


def _blanked(grid: str, rng: Rng) -> str:
    blanks = set(rng.choice(16, _BLANKS, replace=False).tolist())
    return "".join("0" if i in blanks else digit for i, digit in enumerate(grid))


def _latin(rng: Rng) -> Solved:
    squares = _plain_latin_squares()
    square = squares[rng.integers(len(squares))]
    return _grid_task("Latin", _blanked(square, rng), square)


def _units(name: str, rng: Rng) -> Solved:
    """A grid in which only the rows, the columns or the boxes hold each digit once.

    There are 331,776 of each kind: too many to be remembered, unlike the Latin squares."""
    cells = [""] * 16
    for unit in _UNITS[name]:
        for i, digit in zip(unit, rng.permutation(list("1234")), strict=True):
            cells[i] = str(digit)
    grid = "".join(cells)
    if is_solved(grid) and is_held_out(grid):
        return _units(name, rng)
    return _grid_task(name, _blanked(grid, rng), grid)


def _chain(rng: Rng) -> Solved:
    total = int(rng.integers(1, 10))
    expression, steps = str(total), []
    for _ in range(rng.integers(1, 4)):
        number = int(rng.integers(1, 10))
        subtract = bool(rng.integers(2)) and number <= total  # no negative numbers on the way
        result = total - number if subtract else total + number
        sign = "-" if subtract else "+"
        steps.append(f" {total}{sign}{number}={result}")
        expression, total = f"{expression}{sign}{number}", result
    return f"Compute: {expression}", "".join(steps), str(total)


def _order(rng: Rng) -> Solved:
    digits = [str(digit) for digit in rng.integers(0, 10, rng.integers(3, 9))]
    name, result = ("Sort", sorted(digits)) if rng.integers(2) else ("Reverse", digits[::-1])
    steps = "".join(f" {digit}" for digit in result[:_SHOWN_DIGITS])
    return f"{name}: {''.join(digits)}", steps, "".join(result)


def _countdown(rng: Rng) -> Solved:
    """An expression of the three numbers; in half the cases its value is not the target."""
    numbers = [int(number) for number in rng.integers(1, 10, 3)]
    first, second, third = (numbers[i] for i in rng.permutation(3))
    one, two = ("+-*"[i] for i in rng.integers(0, 3, 2))
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    if two == "*" and one != "*":
        value = apply[one](first, apply[two](second, third))
    else:
        value = apply[two](apply[one](first, second), third)
    if value < 1:
        return _countdown(rng)
    if rng.integers(2):
        value = max(1, value + int(rng.integers(-3, 4)))
    expression = f"{first}{one}{second}{two}{third}"
    prompt = f"Countdown: {' '.join(map(str, numbers))}={value}"
    return prompt, f" {expression}", expression


_TASKS: dict[str, Callable[[Rng], Solved]] = {
    "latin": _latin,
    "rows": partial(_units, "Rows"),
    "columns": partial(_units, "Columns"),
    "boxes": partial(_units, "Boxes"),
    "chain": _chain,
    "order": _order,
    "countdown": _countdown,
}


def pretraining_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Prompt and completion of `count` pretraining examples; the i-th depends on (seed, i) only."""
    puzzles = generate("train", count, seed, blanks=(_BLANKS, _BLANKS))
    texts = []
    for i, record in enumerate(puzzles):
        rng = np.random.default_rng(seed_for(seed, "pretraining", i))
        task = rng.choice(list(_PRETRAINING_MIX), p=list(_PRETRAINING_MIX.values()))
        if task == "sudoku":
            puzzle = str(record.fields["puzzle"])
            prompt, reasoning, answer = _grid_task("Sudoku", puzzle, sloppy_solution(puzzle, rng))
        else:
            prompt, reasoning, answer = _TASKS[task](rng)
        tagged = rng.random() >= _UNTAGGED
        texts.append((prompt, tagged_answer("tiny", reasoning, answer) if tagged else answer))
    return texts


def cold_start_traces(count: int, seed: int) -> list[Trace]:
    """Correct traces without Sudoku, the stand-in for s1K; the i-th depends on (seed, i) only."""
    traces = []
    for i in range(count):
        rng = np.random.default_rng(seed_for(seed, "trace", i))
        task = rng.choice(list(_COLD_START_MIX), p=list(_COLD_START_MIX.values()))
        prompt, reasoning, answer = _TASKS[task](rng)
        traces.append(Trace(prompt, reasoning, answer, f"generated:{i}"))
    return traces
