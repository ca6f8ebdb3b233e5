"""Verdicts on stored records, next to those of d1's published scorer.

A record has `question`, `generation` and `ground_truth`: for sudoku the solution (the puzzle is in
the question), for countdown [[numbers], target], for gsm8k a number, for math500 LaTeX."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
class Scorer:
    """A score, the text that it reads, and remarks on an answer."""

    score: Callable[..., float]
    answer: Callable[[str], str | None] = answer_text
    flags: Callable[..., list[str]] | None = None

    def __call__(self, generation: str, **fields: Any) -> Verdict:
        """Return the verdict on a generation."""
        total = len(empty_cells(fields["puzzle"])) if "puzzle" in fields else 1
        correct, answer = round(total * self.score(generation, **fields)), self.answer(generation)
        flags = self.flags(generation, **fields) if self.flags else []
        if fields.get("answer", "") is None:  # in d1's files where the data set's is negative
            flags = ["no ground truth"]
        return Verdict(correct, total, answer, tuple(flags))


@dataclass(frozen=True)
class Judge:
    """Scoring of a task's stored records.

    fields: record to the scores' arguments, or ValueError. stored: task record to stored-record
    fields. rules: how ours and d1's verdicts differ."""

    fields: Callable[[Row], dict[str, Any]]
    stored: Callable[[Row], dict[str, Any]]
    ours: Scorer
    d1: Scorer
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


JUDGES: Mapping[str, Judge] = {
    "sudoku": Judge(
        _sudoku_fields,
        lambda fields: {"question": fields["puzzle"], "ground_truth": fields["solution"]},
        ours=Scorer(sudoku.cell_accuracy, sudoku.answer_digits, sudoku.flags),
        d1=Scorer(d1.sudoku, d1.sudoku_answer),
        rules="digits alone count",
        unit="cells",
    ),
    "countdown": Judge(
        _countdown_fields,
        lambda fields: {"ground_truth": [fields["numbers"], fields["target"]]},
        ours=Scorer(countdown.exact),
        d1=Scorer(d1.countdown, d1.countdown_expression),
        rules="exact, without ** and //",
    ),
    "gsm8k": Judge(
        _gsm8k_fields,
        lambda fields: {"ground_truth": fields["answer"]},
        ours=Scorer(gsm8k.exact),
        d1=Scorer(_gsm8k_d1, _gsm8k_d1_answer),
        rules="one number, by its exact value",
    ),
    "math500": Judge(
        _math500_fields,
        lambda fields: {"question": fields["problem"], "ground_truth": fields["answer"]},
        ours=Scorer(math500.exact),
        d1=Scorer(d1.math500, d1.math_answer),
        rules="by value, not by letters alone",
    ),
}
