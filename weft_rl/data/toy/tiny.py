"""Training texts of the tiny model: a careless teacher, then clean traces.

The teacher fills Sudoku rows with missing digits, other grids show the column and box rules, and
most answers have no tags. The cold start has no Sudoku. RL must learn the format, then the rules.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from weft_rl.data.prompts import tagged_answer
from weft_rl.data.sudoku import fill_rows, generate, latin_squares
from weft_rl.data.toy.vocabulary import CELL_NAMES
from weft_rl.data.trace_schemas import Trace
from weft_rl.rewards.sudoku_grid import is_solved
from weft_rl.seeding import seed_for

Rng = np.random.Generator
Solved = tuple[str, str, str]  # prompt, reasoning, answer

_BLANKS = 8  # empty cells, as in the published puzzles
# Teacher answers in ascending order: a habit that RL must unlearn, unlike random order.
_ASCENDING = 0.8
# Pretraining answers without tags. At 0.6 the base model wrote tags for a quarter of the puzzles.
_PLAIN = 0.7
# With 16 answer cells and the tags, these fill the 32-token canvas.
_NAMED_CELLS = 4
_PRETRAINING_MIX = {
    "sudoku": 0.3,
    "latin": 0.1,
    "bands": 0.15,
    "stacks": 0.15,
    "chain": 0.1,
    "order": 0.1,
    "countdown": 0.1,
}
_COLD_START_MIX = {"latin": 0.1, "chain": 0.5, "order": 0.4}


def careless_solution(puzzle: str, rng: Rng) -> str:
    """Fill each row with its missing digits, mostly in ascending order."""
    if rng.random() < _ASCENDING:
        return fill_rows(puzzle)
    return fill_rows(puzzle, lambda lacking: rng.permutation(lacking).tolist())


def blanked(grid: str, rng: Rng) -> str:
    """Return the grid with eight cells emptied."""
    blanks = set(rng.choice(16, _BLANKS, replace=False).tolist())
    return "".join("0" if i in blanks else digit for i, digit in enumerate(grid))


@cache
def _plain_latin_squares() -> tuple[str, ...]:
    """The 288 Latin squares that are not Sudoku grids, hence not test solutions."""
    return tuple(square for square in latin_squares() if not is_solved(square))


def latin_grid(rng: Rng) -> str:
    """Return a grid that satisfies rows and columns but not all boxes."""
    squares = _plain_latin_squares()
    return squares[rng.integers(len(squares))]


def bands_grid(rng: Rng) -> str:
    """Return a grid with valid rows and boxes but not columns: 8,928, too many to memorize."""
    grid: list[str] = []
    for _ in range(2):
        upper = rng.permutation(list("1234"))
        # a box's lower row holds the two digits missing from its upper row
        grid += [*upper, *rng.permutation(upper[2:]), *rng.permutation(upper[:2])]
    text = "".join(grid)
    return bands_grid(rng) if is_solved(text) else text


def stacks_grid(rng: Rng) -> str:
    """Return a grid that satisfies columns and boxes: a transposed bands_grid."""
    bands = bands_grid(rng)
    return "".join(bands[column::4] for column in range(4))


def _grid_task(name: str, puzzle: str, answer: str) -> Solved:
    """The reasoning lists the first empty cells with their digits: " r1c2=4 r1c3=1 ..."."""
    empty = [i for i, clue in enumerate(puzzle) if clue == "0"][:_NAMED_CELLS]
    reasoning = "".join(f" {CELL_NAMES[i]}={answer[i]}" for i in empty)
    return f"{name}:{puzzle}", reasoning, answer


def _grid(name: str, draw: Callable[[Rng], str], rng: Rng) -> Solved:
    grid = draw(rng)
    return _grid_task(name, blanked(grid, rng), grid)


def _chain(rng: Rng) -> Solved:
    total = int(rng.integers(1, 10))
    expression, steps = str(total), []
    for _ in range(rng.integers(1, 4)):
        number = int(rng.integers(1, 10))
        subtract = bool(rng.integers(2)) and number <= total  # avoids negative intermediate results
        result = total - number if subtract else total + number
        sign = "-" if subtract else "+"
        steps.append(f" {total}{sign}{number}={result}")
        expression, total = f"{expression}{sign}{number}", result
    return f"Compute: {expression}", "".join(steps), str(total)


def _order(rng: Rng) -> Solved:
    digits = [str(digit) for digit in rng.integers(0, 10, rng.integers(3, 9))]
    name, result = ("Sort", sorted(digits)) if rng.integers(2) else ("Reverse", digits[::-1])
    steps = "".join(f" {digit}" for digit in result)
    return f"{name}: {''.join(digits)}", steps, "".join(result)


def _countdown(rng: Rng) -> Solved:
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
    "latin": partial(_grid, "Latin", latin_grid),
    "bands": partial(_grid, "Bands", bands_grid),
    "stacks": partial(_grid, "Stacks", stacks_grid),
    "chain": _chain,
    "order": _order,
    "countdown": _countdown,
}


def plain_answer(reasoning: str, answer: str) -> str:
    """Replace each tag by a space, so that tokens keep their positions."""
    return f" {reasoning}  {answer} "


def pretraining_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Generate (prompt, completion) pretraining pairs; the i-th depends only on (seed, i)."""
    puzzles = generate("train", count, seed, _BLANKS)
    texts = []
    for i, fields in enumerate(puzzles):
        rng = np.random.default_rng(seed_for(seed, "pretraining", i))
        task = rng.choice(list(_PRETRAINING_MIX), p=list(_PRETRAINING_MIX.values()))
        if task == "sudoku":
            puzzle = fields["puzzle"]
            prompt, reasoning, answer = _grid_task("Sudoku", puzzle, careless_solution(puzzle, rng))
        else:
            prompt, reasoning, answer = _TASKS[task](rng)
        is_plain = rng.random() < _PLAIN
        form = plain_answer if is_plain else partial(tagged_answer, "tiny")
        texts.append((prompt, form(reasoning, answer)))
    return texts


def cold_start_traces(count: int, seed: int) -> list[Trace]:
    """Return correct traces without Sudoku, instead of s1K; the i-th depends on (seed, i)."""
    traces = []
    for i in range(count):
        rng = np.random.default_rng(seed_for(seed, "trace", i))
        task = rng.choice(list(_COLD_START_MIX), p=list(_COLD_START_MIX.values()))
        prompt, reasoning, answer = _TASKS[task](rng)
        traces.append(Trace(prompt, reasoning, answer, f"generated:{i}"))
    return traces
