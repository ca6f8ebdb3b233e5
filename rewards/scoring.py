"""Verdicts on stored records, next to those of d1's published scorer.

A record has `question`, `generation` and `ground_truth`: for sudoku the solution (the puzzle is in
the question), for countdown [[numbers], target], for gsm8k a number, for math500 LaTeX."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from weft_rl.rewards import countdown, gsm8k, math500, sudoku
from weft_rl.rewards.d1_scorer import evaluation as d1
from weft_rl.rewards.extract import answer_text
from weft_rl.rewards.sudoku_grid import empty_cells, is_solved, keeps_clues

Row = Mapping[str, Any]

_PUZZLE = re.compile(r"(?<![0-9])[0-4]{16}(?![0-9])")
_QUOTED = 60  # characters of an answer quoted in a message


@dataclass(frozen=True)
class Verdict:
    """Score of a record: `correct` of `total` (cells for sudoku, else 1)."""

    correct: int
    total: int
    answer: str | None  # as extracted
    flags: tuple[str, ...] = ()  # remarks on the answer


@dataclass(frozen=True)
class Judge:
    """Scoring of a task's stored records.

    fields: record to verdict arguments, or ValueError. stored: task record to stored-record fields.
    ours, d1: verdicts of (generation, **fields). rules: their differences."""

    fields: Callable[[Row], dict[str, Any]]
    stored: Callable[[Row], dict[str, Any]]
    ours: Callable[..., Verdict]
    d1: Callable[..., Verdict]
    rules: str
    unit: str = "records"


def reason(judge: Judge, verdict: Verdict, published: Verdict) -> str:
    """Explain why d1's verdict differs."""
    ours, d1 = _quoted(verdict.answer), _quoted(published.answer)
    if verdict.answer is None:
        return f"no answer in a tag or box before the end; d1 reads {d1}"
    if verdict.answer.strip() == (published.answer or "").strip():
        return f"{ours} is judged by other rules: {judge.rules}"
    return f"the answer is {ours}; d1 reads {d1}"


def _quoted(text: str | None) -> str:
    text = text or ""
    return repr(text if len(text) <= _QUOTED else f"...{text[-_QUOTED:]}")


def _sudoku_fields(row: Row) -> dict[str, Any]:
    puzzle, solution = _PUZZLE.search(str(row.get("question"))), row.get("ground_truth")
    if puzzle is None or not empty_cells(puzzle[0]):
        raise ValueError("`question` must hold a puzzle: 16 digits from 0 to 4, 0 being empty")
    if not isinstance(solution, str) or not is_solved(solution):
        raise ValueError("`ground_truth` must be the solution: a full grid of 16 digits")
    if not keeps_clues(puzzle[0], solution):
        raise ValueError("`ground_truth` does not keep the clues of the puzzle")
    return {"puzzle": puzzle[0], "solution": solution}


def _sudoku(generation: str, puzzle: str, solution: str) -> Verdict:
    digits, total = sudoku.answer_digits(generation), len(empty_cells(puzzle))
    right = 0 if digits is None else sudoku.cells_right(digits, puzzle, solution)
    return Verdict(right, total, digits, tuple(sudoku.flags(generation, puzzle, solution)))


def _sudoku_any(generation: str, puzzle: str, solution: str) -> Verdict:
    digits = sudoku.answer_digits(generation) or ""
    key = max(sudoku.solutions(puzzle), key=lambda key: sudoku.cells_right(digits, puzzle, key))
    verdict = _sudoku(generation, puzzle, key)
    is_other = digits == key != solution
    return replace(verdict, flags=(*verdict.flags, "other solution")) if is_other else verdict


def _sudoku_d1(generation: str, puzzle: str, solution: str) -> Verdict:
    total = len(empty_cells(puzzle))
    right = round(total * d1.sudoku(generation, puzzle, solution))
    return Verdict(right, total, d1.sudoku_answer(generation))


def _countdown_fields(row: Row) -> dict[str, Any]:
    match row.get("ground_truth"):
        case [[*numbers], target] if all(type(value) is int for value in (*numbers, target)):
            return {"numbers": numbers, "target": target}
    raise ValueError("`ground_truth` must be [[numbers], target], all integers")


def _gsm8k_fields(row: Row) -> dict[str, Any]:
    answer = row.get("ground_truth", "")
    if answer is None or (type(answer) in (int, float, str) and gsm8k.gold(answer) is not None):
        return {"answer": answer}
    raise ValueError("`ground_truth` must be a number, or text that ends in #### and a number")


def _gsm8k_d1(generation: str, answer: str | float | None) -> float:
    right = gsm8k.gold(answer)
    return d1.gsm8k(generation, None if right is None else float(right))


def _gsm8k_d1_answer(generation: str) -> str | None:
    number = d1.gsm8k_number(generation)
    return None if number is None else f"{number:.12g}"


def _math500_fields(row: Row) -> dict[str, Any]:
    answer = row.get("ground_truth")
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("`ground_truth` must be the answer in LaTeX, not empty")
    return {"answer": answer, "problem": str(row.get("question", ""))}


def _verdict(
    score: Callable[..., float], read: Callable[[str], str | None]
) -> Callable[..., Verdict]:
    def verdict(generation: str, **fields: Any) -> Verdict:
        # d1's files have null where the data set's answer is negative
        flags = ("no ground truth",) if fields.get("answer", "") is None else ()
        return Verdict(int(score(generation, **fields)), 1, read(generation), flags)

    return verdict


JUDGES: Mapping[str, Judge] = {
    "sudoku": Judge(
        _sudoku_fields,
        lambda fields: {"question": fields["puzzle"], "ground_truth": fields["solution"]},
        _sudoku,
        _sudoku_d1,
        rules="digits alone count",
        unit="cells",
    ),
    "countdown": Judge(
        _countdown_fields,
        lambda fields: {"ground_truth": [fields["numbers"], fields["target"]]},
        _verdict(countdown.exact, answer_text),
        _verdict(d1.countdown, d1.countdown_expression),
        rules="exact, without ** and //",
    ),
    "gsm8k": Judge(
        _gsm8k_fields,
        lambda fields: {"ground_truth": fields["answer"]},
        _verdict(gsm8k.exact, answer_text),
        _verdict(_gsm8k_d1, _gsm8k_d1_answer),
        rules="one number, by its exact value",
    ),
    "math500": Judge(
        _math500_fields,
        lambda fields: {"question": fields["problem"], "ground_truth": fields["answer"]},
        _verdict(math500.exact, answer_text),
        _verdict(d1.math500, d1.math_answer),
        rules="by value, not by letters alone",
    ),
}
ANY_SOLUTION = replace(
    JUDGES["sudoku"], ours=_sudoku_any, rules="any solution of the puzzle counts"
)
