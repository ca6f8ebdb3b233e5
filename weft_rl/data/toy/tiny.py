"""What the tiny model is trained on: a careless teacher, then clean traces.

In pretraining a teacher solves Sudoku by filling in what each row lacks, and other grids show what
columns and boxes are; most answers have no tags. Cold start has no Sudoku in it. So there is
something left to learn: the format, and then to heed columns and boxes in a Sudoku."""

from collections.abc import Callable

import numpy as np

from weft_rl.data.prompts import CELL_NAMES, plain_answer, tagged_answer
from weft_rl.data.sudoku import generate
from weft_rl.data.toy.grids import (
    BLANKS,
    bands_grid,
    blanked,
    careless_solution,
    latin_grid,
    stacks_grid,
)
from weft_rl.data.trace_schemas import Trace
from weft_rl.seeding import seed_for

Rng = np.random.Generator
# A task's prompt, its reasoning and its answer
Solved = tuple[str, str, str]

# Share of pretraining answers without tags: the format is left for the cold start to settle. With
# six in ten the base still wrote tags for a quarter of the puzzles.
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


def first_cells(puzzle: str, answer: str) -> str:
    """The first empty cells with their digits: " r1c2=4 r1c3=1 ..."."""
    empty = [i for i, clue in enumerate(puzzle) if clue == "0"][:_NAMED_CELLS]
    return "".join(f" {CELL_NAMES[i]}={answer[i]}" for i in empty)


def _grid_task(name: str, puzzle: str, answer: str) -> Solved:
    return f"{name}:{puzzle}", first_cells(puzzle, answer), answer


def _grid(name: str, grid: str, rng: Rng) -> Solved:
    return _grid_task(name, blanked(grid, rng), grid)


def _latin(rng: Rng) -> Solved:
    return _grid("Latin", latin_grid(rng), rng)


def _bands(rng: Rng) -> Solved:
    return _grid("Bands", bands_grid(rng), rng)


def _stacks(rng: Rng) -> Solved:
    return _grid("Stacks", stacks_grid(rng), rng)


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
    "latin": _latin,
    "bands": _bands,
    "stacks": _stacks,
    "chain": _chain,
    "order": _order,
    "countdown": _countdown,
}


def pretraining_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Prompt and completion of `count` pretraining examples; the i-th depends on (seed, i) only."""
    puzzles = generate("train", count, seed, blanks=(BLANKS, BLANKS))
    texts = []
    for i, record in enumerate(puzzles):
        rng = np.random.default_rng(seed_for(seed, "pretraining", i))
        task = rng.choice(list(_PRETRAINING_MIX), p=list(_PRETRAINING_MIX.values()))
        if task == "sudoku":
            puzzle = str(record.fields["puzzle"])
            prompt, reasoning, answer = _grid_task("Sudoku", puzzle, careless_solution(puzzle, rng))
        else:
            prompt, reasoning, answer = _TASKS[task](rng)
        plain = rng.random() < _PLAIN
        text = (
            plain_answer(reasoning, answer) if plain else tagged_answer("tiny", reasoning, answer)
        )
        texts.append((prompt, text))
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
