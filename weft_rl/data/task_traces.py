"""Generated cold-start traces of built-in tasks, in the words of a prompt style.

The problems are those of the training split: evaluation has others."""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations, product
from operator import add, floordiv, mul, sub
from typing import Any

import numpy as np

from weft_rl.data import countdown, sudoku
from weft_rl.data.prompts import PromptStyle, sudoku_rows, tagged_answer
from weft_rl.data.tasks import task_prompt
from weft_rl.data.trace_schemas import Trace
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS, SIZE, empty_cells
from weft_rl.seeding import seed_for

Fields = Mapping[str, Any]
_OPERATIONS: dict[str, Callable[[int, int], int]] = {"+": add, "-": sub, "*": mul, "/": floordiv}
# Cells in the reasoning: prompt and answer take 158 tokens of SmolLM2, its system message included.
_NAMED_CELLS = 3


def task_traces(task: str, style: PromptStyle, count: int, seed: int) -> list[Trace]:
    """Return correct traces of `sudoku` or `countdown`; the i-th depends only on (seed, i).

    Raises UserError if the style has no prompt for the task."""
    generate, solve = _TASKS[task]
    traces = []
    for i, fields in enumerate(generate("train", count, seed_for(seed, "traces"))):
        rng = np.random.default_rng(seed_for(seed, "trace", task, i))
        # the prompt asks for the tags already: a chat, to which nothing is added
        answer = tagged_answer(style, *solve(fields, style, rng))
        traces.append(Trace(task_prompt(style, task, fields), None, answer, f"generated:{i}"))
    return traces


def solve_sudoku(fields: Fields, style: PromptStyle, rng: np.random.Generator) -> tuple[str, str]:
    """Return the first cells of the solution, always one with the fewest candidates, and all."""
    puzzle, solution, steps = fields["puzzle"], fields["solution"], ""
    for _ in range(_NAMED_CELLS):
        cell = min(empty_cells(puzzle), key=lambda i: len(_candidates(puzzle, i)))
        puzzle = puzzle[:cell] + solution[cell] + puzzle[cell + 1 :]
        steps += f" r{cell // SIZE + 1}c{cell % SIZE + 1}={solution[cell]}"
    return steps, sudoku_rows(solution) if style == "chat" else solution


def _candidates(puzzle: str, cell: int) -> set[str]:
    row, column = divmod(cell, SIZE)
    seen = {
        puzzle[i]
        for i in range(CELLS)
        if row == i // SIZE
        or column == i % SIZE
        or (row // 2, column // 2) == (i // SIZE // 2, i % SIZE // 2)
    }
    return {*DIGITS} - seen


def solve_countdown(
    fields: Fields, style: PromptStyle, rng: np.random.Generator
) -> tuple[str, str]:
    """Return two steps without fractions or negative numbers, and their expression, drawn."""
    # with three numbers, every whole target has such steps
    solutions = [*dict.fromkeys(_solutions(fields["numbers"], fields["target"]))]
    return solutions[rng.integers(len(solutions))]


def _solutions(numbers: list[int], target: int) -> Iterator[tuple[str, str]]:
    for (a, b, c), inner, outer in product(permutations(numbers), _OPERATIONS, _OPERATIONS):
        pair = _whole(a, inner, b)
        if pair is None:
            continue
        # the pair is the left or the right side of the second step
        if _whole(pair, outer, c) == target:
            text = f"({a}{inner}{b})" if inner in "+-" and outer in "*/" else f"{a}{inner}{b}"
            yield f" {a}{inner}{b}={pair} {pair}{outer}{c}={target}", f"{text}{outer}{c}"
        if _whole(c, outer, pair) == target:
            is_plain = outer == "+" or (outer == "*" and inner in "*/")
            text = f"{a}{inner}{b}" if is_plain else f"({a}{inner}{b})"
            yield f" {a}{inner}{b}={pair} {c}{outer}{pair}={target}", f"{c}{outer}{text}"


def _whole(left: int, sign: str, right: int) -> int | None:
    if sign == "/" and (right == 0 or left % right):
        return None
    value = _OPERATIONS[sign](left, right)
    return value if value >= 0 else None


_TASKS = {
    "sudoku": (sudoku.generate, solve_sudoku),
    "countdown": (countdown.generate, solve_countdown),
}
