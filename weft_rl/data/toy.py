"""Vocabulary and training texts of the tiny model: a careless teacher, then clean traces.

The teacher fills Sudoku rows with missing digits, other grids show the column and box rules, and
most answers have no tags. The cold start has no Sudoku. RL must learn the format, then the rules.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from weft_rl.data.prompts import tagged_answer
from weft_rl.data.sudoku import fill_rows, generate, latin_squares
from weft_rl.data.trace_schemas import Trace
from weft_rl.rewards.sudoku_grid import is_solved
from weft_rl.seeding import seed_for

Rng = np.random.Generator
Solved = tuple[str, str, str]  # prompt, reasoning, answer

BOS, EOS, EOT = "<|startoftext|>", "<|endoftext|>", "<|eot_id|>"
MASK, UNKNOWN = "<|mdm_mask|>", "<|unknown|>"
HEADERS = [f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant")]
_CELL_NAMES = [f"r{row}c{column}" for row in range(1, 5) for column in range(1, 5)]
SYMBOLS = [
    *(MASK, EOS, BOS, EOT, UNKNOWN),
    *HEADERS,
    *("<reasoning>", "</reasoning>", "<answer>", "</answer>"),
    *("Sudoku:", "Latin:", "Bands:", "Stacks:"),
    *("Countdown: ", "Compute: ", "Sort: ", "Reverse: "),
    *(f" {cell}=" for cell in _CELL_NAMES),
    *"0123456789+-*/()= ",
]
POSITIONS = 256  # prompt and completion take about 60

_BLANKS = 8  # empty cells, as in the published puzzles
# Teacher answers in ascending order: a habit that RL must unlearn, unlike random order.
_ASCENDING = 0.8
# Pretraining answers without tags. At 0.6 the base model wrote tags for a quarter of the puzzles.
_PLAIN = 0.7
# With 16 answer cells and the tags, these fill the 32-token canvas.
_NAMED_CELLS = 4
# Share of pretraining texts and of cold-start traces.
_MIX = {
    "sudoku": (0.3, 0.0),
    "latin": (0.1, 0.1),
    "bands": (0.15, 0.0),
    "stacks": (0.15, 0.0),
    "chain": (0.1, 0.5),
    "order": (0.1, 0.4),
    "countdown": (0.1, 0.0),
}
_PRETRAINING_SHARES, _COLD_START_SHARES = zip(*_MIX.values(), strict=True)


def careless_solution(puzzle: str, rng: Rng) -> str:
    """Fill each row with its missing digits, mostly in ascending order."""
    if rng.random() < _ASCENDING:
        return fill_rows(puzzle)
    return fill_rows(puzzle, lambda lacking: rng.permutation(lacking).tolist())


@cache
def _plain_latin_squares() -> tuple[str, ...]:
    """The 288 Latin squares that are not Sudoku grids, hence not test solutions."""
    return tuple(square for square in latin_squares() if not is_solved(square))


def _latin_grid(rng: Rng) -> str:
    """A grid that satisfies rows and columns but not all boxes."""
    squares = _plain_latin_squares()
    return squares[rng.integers(len(squares))]


def _bands_grid(rng: Rng) -> str:
    """A grid with valid rows and boxes but not columns: 8,928, too many to memorize."""
    grid: list[str] = []
    for _ in range(2):
        upper = rng.permutation(list("1234"))
        # a box's lower row holds the two digits missing from its upper row
        grid += [*upper, *rng.permutation(upper[2:]), *rng.permutation(upper[:2])]
    text = "".join(grid)
    return _bands_grid(rng) if is_solved(text) else text


def _stacks_grid(rng: Rng) -> str:
    """A grid that satisfies columns and boxes: transposed bands."""
    bands = _bands_grid(rng)
    return "".join(bands[column::4] for column in range(4))


def _grid_task(name: str, puzzle: str, answer: str) -> Solved:
    """The reasoning lists the first empty cells with their digits: " r1c2=4 r1c3=1 ..."."""
    empty = [i for i, clue in enumerate(puzzle) if clue == "0"][:_NAMED_CELLS]
    return f"{name}:{puzzle}", "".join(f" {_CELL_NAMES[i]}={answer[i]}" for i in empty), answer


def _grid(name: str, draw: Callable[[Rng], str], rng: Rng) -> Solved:
    grid = draw(rng)
    blanks = rng.choice(16, _BLANKS, replace=False).tolist()
    puzzle = "".join("0" if i in blanks else digit for i, digit in enumerate(grid))
    return _grid_task(name, puzzle, grid)


def _chain(rng: Rng) -> Solved:
    total = int(rng.integers(1, 10))
    expression, steps = str(total), ""
    for _ in range(rng.integers(1, 4)):
        number = int(rng.integers(1, 10))
        subtract = bool(rng.integers(2)) and number <= total  # avoids negative intermediate results
        sign, result = ("-", total - number) if subtract else ("+", total + number)
        steps += f" {total}{sign}{number}={result}"
        expression, total = f"{expression}{sign}{number}", result
    return f"Compute: {expression}", steps, str(total)


def _order(rng: Rng) -> Solved:
    digits = [str(digit) for digit in rng.integers(0, 10, rng.integers(3, 9))]
    name, result = ("Sort", sorted(digits)) if rng.integers(2) else ("Reverse", digits[::-1])
    return f"{name}: {''.join(digits)}", "".join(f" {each}" for each in result), "".join(result)


def _countdown(rng: Rng) -> Solved:
    numbers = rng.integers(1, 10, 3).tolist()
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
    return f"Countdown: {' '.join(map(str, numbers))}={value}", f" {expression}", expression


_TASKS: dict[str, Callable[[Rng], Solved]] = {
    "latin": partial(_grid, "Latin", _latin_grid),
    "bands": partial(_grid, "Bands", _bands_grid),
    "stacks": partial(_grid, "Stacks", _stacks_grid),
    "chain": _chain,
    "order": _order,
    "countdown": _countdown,
}


def plain_answer(reasoning: str, answer: str) -> str:
    """Replace each tag by a space, so that tokens keep their positions."""
    return f" {reasoning}  {answer} "


def pretraining_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Generate (prompt, completion) pretraining pairs; the i-th depends only on (seed, i)."""
    texts = []
    for i, fields in enumerate(generate("train", count, seed, _BLANKS)):
        rng = np.random.default_rng(seed_for(seed, "pretraining", i))
        task = rng.choice(list(_MIX), p=_PRETRAINING_SHARES)
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
        task = rng.choice(list(_MIX), p=_COLD_START_SHARES)
        traces.append(Trace(*_TASKS[task](rng), f"generated:{i}"))
    return traces
