"""Training texts of the tiny model: a careless teacher, then clean traces.

In pretraining a teacher solves Sudoku by filling in what each row lacks, and other grids show the
rules of columns and boxes; most answers have no tags. The cold start holds no Sudoku. So RL has
something left to learn: the format, and then the rules of columns and boxes in a Sudoku."""

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
# A task's prompt, its reasoning and its answer
Solved = tuple[str, str, str]

_BLANKS = 8  # empty cells, as in the published puzzles
# Share of the teacher's answers with each row's digits in ascending order: a habit that RL has to
# overcome, which random order, wrong about as often, would not be.
_ASCENDING = 0.8
# Share of pretraining answers without tags: the format is left to the cold start. At 0.6 the base
# still wrote tags for a quarter of the puzzles.
_PLAIN = 0.7
# Named in the reasoning; with the 16 answer cells and the tags they fill the 32-token canvas.
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
    """The puzzle with each row filled by the digits that it lacks, mostly in ascending order."""
    if rng.random() < _ASCENDING:
        return fill_rows(puzzle)
    return fill_rows(puzzle, lambda lacking: rng.permutation(lacking).tolist())


def blanked(grid: str, rng: Rng) -> str:
    """The grid with eight of its cells empty."""
    blanks = set(rng.choice(16, _BLANKS, replace=False).tolist())
    return "".join("0" if i in blanks else digit for i, digit in enumerate(grid))


@cache
def _plain_latin_squares() -> tuple[str, ...]:
    """The 288 Latin squares that are not Sudoku grids, and so not test solutions."""
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


def _grid_task(name: str, puzzle: str, answer: str) -> Solved:
    """The reasoning names the first empty cells with their digits: " r1c2=4 r1c3=1 ..."."""
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
        subtract = bool(rng.integers(2)) and number <= total  # no negative intermediate result
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
    "latin": partial(_grid, "Latin", latin_grid),
    "bands": partial(_grid, "Bands", bands_grid),
    "stacks": partial(_grid, "Stacks", stacks_grid),
    "chain": _chain,
    "order": _order,
    "countdown": _countdown,
}


def plain_answer(reasoning: str, answer: str) -> str:
    """An answer with a blank in place of each tag, so that every token has the position that it has
    in a tagged answer."""
    return f" {reasoning}  {answer} "


def pretraining_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Prompt and completion of `count` pretraining examples; the i-th depends on (seed, i) only."""
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
    """Correct traces without Sudoku, the stand-in for s1K; the i-th depends on (seed, i) only."""
    traces = []
    for i in range(count):
        rng = np.random.default_rng(seed_for(seed, "trace", i))
        task = rng.choice(list(_COLD_START_MIX), p=list(_COLD_START_MIX.values()))
        prompt, reasoning, answer = _TASKS[task](rng)
        traces.append(Trace(prompt, reasoning, answer, f"generated:{i}"))
    return traces
