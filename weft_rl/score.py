"""`score`: saved generations -> verdicts and a score, printed as one JSON object.

A generations file is JSONL with `question`, `generation` and `ground_truth`: the solution for
sudoku, whose puzzle stands in the question, and [[numbers], target] for countdown."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewards import countdown, strict_d1, sudoku
from rewards.extract import answer_text
from rewards.grid import empty_cells, is_solved, keeps_clues
from weft_rl.cli import execute
from weft_rl.config.load import parse_options
from weft_rl.errors import UserError

_PUZZLE = re.compile(r"(?<![0-9])[0-4]{16}(?![0-9])")
# What a message quotes of an answer at most.
_QUOTED = 60


@dataclass(frozen=True)
class Verdict:
    """What one record scores: `correct` of `total` (cells for sudoku, 1 for countdown)."""

    correct: int
    total: int
    answer: str | None  # what was taken for the answer
    flags: list[str] = field(default_factory=list)  # what else is worth knowing of the answer


@dataclass(frozen=True)
class Judge:
    """How a task's records are scored: `ours` and `d1` take the generation and the fields."""

    unit: str
    fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    ours: Callable[..., Verdict]
    d1: Callable[..., Verdict]


@dataclass(frozen=True)
class ScoreConfig:
    """Options of `score`. Raises UserError for a value that is none of the choices."""

    task: str = field(metadata={"help": "what was asked: sudoku, countdown"})
    generations: str = field(
        metadata={"help": "JSONL file with question, generation and ground_truth"}
    )
    strict: str | None = field(
        default=None, metadata={"help": "d1: the verdicts of d1's published scorer"}
    )
    per_record: bool = field(default=True, metadata={"help": "print each record's verdict too"})

    def __post_init__(self) -> None:
        if self.task not in JUDGES:
            raise UserError(f"task={self.task}: must be one of {', '.join(JUDGES)}")
        if self.strict not in (None, "d1"):
            raise UserError(f"strict={self.strict}: must be d1 or null")


def main(argv: Sequence[str]) -> int:
    """Score from command-line arguments; returns the exit status."""
    about = "Score saved generations; prints one JSON object."
    options = parse_options(ScoreConfig, argv, command="weft_rl.score", description=about)
    return run(options)


def run(config: ScoreConfig) -> int:
    """Score the file and print the result; returns 0. Raises UserError like score_file."""
    result = score_file(Path(config.generations), config.task, config.strict)
    if not config.per_record:
        del result["per_record"]
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def score_file(path: Path, task: str, strict: str | None = None) -> dict[str, Any]:
    """Score a generations file, reading it line by line.

    Returns task, strict, n (records scored), unit, correct and total (in that unit), score
    (percent: 100 correct / total), per_record (line, correct, total, and flags if there are any),
    disagreements (records on which d1's scorer differs, each with the reason; none when strict)
    and broken (line and reason of every line that could not be scored: these count nowhere else).
    strict: "d1" for the verdicts of d1's published scorer. Raises UserError for a file that cannot
    be read or has no usable record."""
    judge = JUDGES[task]
    correct = total = 0
    per_record: list[dict[str, Any]] = []
    disagreements: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    for line, record in _records(path, judge):
        if isinstance(record, str):
            broken.append({"line": line, "reason": record})
            continue
        generation, fields = record
        published = judge.d1(generation, **fields)
        verdict = published if strict else judge.ours(generation, **fields)
        row = _row(line, verdict)
        per_record.append(row)
        correct, total = correct + verdict.correct, total + verdict.total
        if verdict.correct != published.correct:
            reason = _reason(verdict, published)
            disagreements.append(row | {"d1": published.correct, "reason": reason})
    if not per_record:
        why = (
            f"{path}:{broken[0]['line']}: {broken[0]['reason']}" if broken else f"{path}: is empty"
        )
        raise UserError(f"{why}; name a file of generations for task={task}")
    return {
        "task": task,
        "strict": strict,
        "n": len(per_record),
        "unit": judge.unit,
        "correct": correct,
        "total": total,
        "score": round(100 * correct / total, 2),
        "per_record": per_record,
        "disagreements": disagreements,
        "broken": broken,
    }


def _row(line: int, verdict: Verdict) -> dict[str, Any]:
    row: dict[str, Any] = {"line": line, "correct": verdict.correct, "total": verdict.total}
    return row | ({"flags": verdict.flags} if verdict.flags else {})


def _records(path: Path, judge: Judge) -> Iterator[tuple[int, tuple[str, dict[str, Any]] | str]]:
    """Line numbers with generation and fields, or with what is wrong with the line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _parsed(line, judge)
    except OSError as error:
        raise UserError(
            f"generations={path}: cannot be read ({error.strerror}); name a JSONL file"
        ) from error


def _parsed(line: bytes, judge: Judge) -> tuple[str, dict[str, Any]] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    if not isinstance(row, dict) or not isinstance(row.get("generation"), str):
        return "must be an object with a text `generation`"
    try:
        return row["generation"], judge.fields(row)
    except ValueError as error:
        return str(error)


def _reason(verdict: Verdict, published: Verdict) -> str:
    """Why d1's verdict differs."""
    if verdict.answer is None:
        return f"no answer in a tag or box before the end; d1 reads {_quoted(published.answer)}"
    if verdict.answer.strip() == (published.answer or "").strip():
        return f"{_quoted(verdict.answer)} is judged by other rules: exact, without ** and //"
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


JUDGES: Mapping[str, Judge] = {
    "sudoku": Judge("cells", _sudoku_fields, _sudoku_verdict, _sudoku_d1),
    "countdown": Judge("records", _countdown_fields, _countdown_verdict, _countdown_d1),
}


if __name__ == "__main__":
    sys.exit(execute("weft_rl.score", main, sys.argv[1:]))
