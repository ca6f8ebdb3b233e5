"""What a stored record scores: our verdict beside that of d1's published scorer, per task.

A record has `question`, `generation` and `ground_truth`: the solution for sudoku, whose puzzle
stands in the question, [[numbers], target] for countdown, a number for gsm8k, LaTeX for math500."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft_rl.rewards import countdown, gsm8k, math500, sudoku
from weft_rl.rewards.d1_scorer import math as strict_math
from weft_rl.rewards.d1_scorer import sudoku_countdown as strict_d1
from weft_rl.rewards.extract import answer_text
from weft_rl.rewards.sudoku_grid import empty_cells, is_solved, keeps_clues

_PUZZLE = re.compile(r"(?<![0-9])[0-4]{16}(?![0-9])")
# What a message quotes of an answer at most.
_QUOTED = 60
# Of a record whose right answer is null, as d1's files have it where the data set's is negative.
NO_TRUTH = "no ground truth"


@dataclass(frozen=True)
class Verdict:
    """What one record scores: `correct` of `total` (cells for sudoku, else 1)."""

    correct: int
    total: int
    answer: str | None  # what was taken for the answer
    flags: list[str] = field(default_factory=list)  # what else is worth knowing of the answer


@dataclass(frozen=True)
class Judge:
    """How a task's records are scored: `ours` and `d1` take the generation and the fields.

    `fields` raises ValueError for a record that cannot be scored, saying why."""

    unit: str
    fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    ours: Callable[..., Verdict]
    d1: Callable[..., Verdict]
    rules: str  # what is different when both read the same answer


def reason(judge: Judge, verdict: Verdict, published: Verdict) -> str:
    """Why d1's verdict differs."""
    if verdict.answer is None:
        return f"no answer in a tag or box before the end; d1 reads {_quoted(published.answer)}"
    if verdict.answer.strip() == (published.answer or "").strip():
        return f"{_quoted(verdict.answer)} is judged by other rules: {judge.rules}"
    return f"the answer is {_quoted(verdict.answer)}; d1 reads {_quoted(published.answer)}"


def _quoted(text: str | None) -> str:
    shown = text or ""
    return repr(shown if len(shown) <= _QUOTED else f"...{shown[-_QUOTED:]}")


def _sudoku_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    puzzle = _PUZZLE.search(str(row.get("question")))
    solution = row.get("ground_truth")
    if puzzle is None or not empty_cells(puzzle[0]):
        raise ValueError("`question` must hold a puzzle: 16 digits from 0 to 4, 0 being empty")
    if not isinstance(solution, str) or not is_solved(solution):
        raise ValueError("`ground_truth` must be the solution: a full grid of 16 digits")
    if not keeps_clues(puzzle[0], solution):
        raise ValueError("`ground_truth` does not keep the clues of the puzzle")
    return {"puzzle": puzzle[0], "solution": solution}


def _sudoku_verdict(generation: str, puzzle: str, solution: str) -> Verdict:
    digits, total = sudoku.answer_digits(generation), len(empty_cells(puzzle))
    right = 0 if digits is None else sudoku.cells_right(digits, puzzle, solution)
    return Verdict(right, total, digits, sudoku.flags(generation, puzzle, solution))


def _sudoku_any(generation: str, puzzle: str, solution: str) -> Verdict:
    """The puzzle's solution that agrees best with the answer is the key."""
    digits = sudoku.answer_digits(generation) or ""
    key = max(sudoku.solutions(puzzle), key=lambda key: sudoku.cells_right(digits, puzzle, key))
    verdict = _sudoku_verdict(generation, puzzle, key)
    other = ["other solution"] if digits == key != solution else []
    return Verdict(verdict.correct, verdict.total, verdict.answer, verdict.flags + other)


def _sudoku_d1(generation: str, puzzle: str, solution: str) -> Verdict:
    total = len(empty_cells(puzzle))
    right = round(total * strict_d1.sudoku(generation, puzzle, solution))
    return Verdict(right, total, strict_d1.sudoku_answer(generation))


def _countdown_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    match row.get("ground_truth"):
        case [[*numbers], target] if all(type(value) is int for value in (*numbers, target)):
            return {"numbers": numbers, "target": target}
    raise ValueError("`ground_truth` must be [[numbers], target], all integers")


def _countdown_verdict(generation: str, numbers: Sequence[int], target: int) -> Verdict:
    right = countdown.exact(generation, numbers, target)
    return Verdict(int(right), 1, answer_text(generation))


def _countdown_d1(generation: str, numbers: Sequence[int], target: int) -> Verdict:
    right = strict_d1.countdown(generation, numbers, target)
    return Verdict(int(right), 1, strict_d1.countdown_expression(generation))


def _gsm8k_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = row.get("ground_truth", "")
    if answer is None or (type(answer) in (int, float, str) and gsm8k.gold(answer) is not None):
        return {"answer": answer}
    raise ValueError("`ground_truth` must be a number, or text that ends in #### and a number")


def _gsm8k_verdict(generation: str, answer: str | float | None) -> Verdict:
    flags = [NO_TRUTH] if answer is None else []
    return Verdict(int(gsm8k.exact(generation, answer)), 1, answer_text(generation), flags)


def _gsm8k_d1(generation: str, answer: str | float | None) -> Verdict:
    right, read = gsm8k.gold(answer), strict_math.gsm8k_number(generation)
    flags = [NO_TRUTH] if right is None else []
    is_right = right is not None and strict_math.gsm8k(generation, float(right))
    return Verdict(int(is_right), 1, None if read is None else f"{read:.12g}", flags)


def _math500_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = row.get("ground_truth")
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("`ground_truth` must be the answer in LaTeX, not empty")
    return {"answer": answer, "problem": str(row.get("question", ""))}


def _math500_verdict(generation: str, answer: str, problem: str) -> Verdict:
    right = math500.exact(generation, answer, problem)
    return Verdict(int(right), 1, answer_text(generation))


def _math500_d1(generation: str, answer: str, problem: str) -> Verdict:
    right = strict_math.math500(generation, answer)
    return Verdict(int(right), 1, strict_math.math_answer(generation))


ANY_SOLUTION = Judge(
    "cells", _sudoku_fields, _sudoku_any, _sudoku_d1, "any solution of the puzzle counts"
)
JUDGES: Mapping[str, Judge] = {
    "sudoku": Judge("cells", _sudoku_fields, _sudoku_verdict, _sudoku_d1, "digits alone count"),
    "countdown": Judge(
        *("records", _countdown_fields, _countdown_verdict, _countdown_d1),
        "exact, without ** and //",
    ),
    "gsm8k": Judge(
        *("records", _gsm8k_fields, _gsm8k_verdict, _gsm8k_d1), "one number, by its exact value"
    ),
    "math500": Judge(
        *("records", _math500_fields, _math500_verdict, _math500_d1),
        "by value, not by letters alone",
    ),
}
