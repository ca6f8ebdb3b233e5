"""Task records and their construction from file rows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weft_rl.config.fields import shown
from weft_rl.data.values import first_of, is_missing, plain_number, require_text
from weft_rl.rewards import gsm8k
from weft_rl.rewards.extract import boxed
from weft_rl.rewards.sudoku_grid import is_solved, keeps_clues

Split = Literal["train", "test"]
Row = Mapping[str, Any]  # keyed by lower-case column

PACKAGED = Path(__file__).parent / "files"  # published test sets; see PROVENANCE.md there
# ASCII digits, unlike int(); at most nine, the limit of the reward.
_INTEGER = re.compile(r"[0-9]{1,9}")
# MATH writes \boxed{5}, \boxed 5 and \fbox{5}.
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_FORMULA_END = re.compile(r"\$|\\\)|\\\]|\\end(?![A-Za-z])|\n")


@dataclass(frozen=True)
class Record:
    """A problem of a task; prompts and reward functions receive its fields.

    sudoku: puzzle (16 characters, 0 empty), solution (16 digits). countdown: numbers (list of int),
    target (int). gsm8k: question, answer (ends in #### number). math500: problem, answer."""

    id: str
    task: str
    fields: dict[str, Any]


def sudoku_fields(row: Row) -> dict[str, Any]:
    """Return fields from puzzle and solution. All *_fields raise ValueError for a bad row."""
    puzzle, solution = row.get("puzzle"), row.get("solution")
    if not isinstance(puzzle, str) or not re.fullmatch("[0-4]{16}", puzzle):
        raise ValueError(f"Puzzle must be 16 digits from 0 to 4, got {shown(puzzle)}")
    if not isinstance(solution, str) or not re.fullmatch("[1-4]{16}", solution):
        raise ValueError(f"Solution must be 16 digits from 1 to 4, got {shown(solution)}")
    if not is_solved(solution) or not keeps_clues(puzzle, solution):
        raise ValueError(f"Solution {solution} does not solve Puzzle {puzzle}")
    return {"puzzle": puzzle, "solution": solution}


def countdown_fields(row: Row) -> dict[str, Any]:
    """Return fields from numbers (or nums) and target, or input ("30,100,93") and output."""
    numbers = first_of(row, "numbers", "nums", "input")
    if isinstance(numbers, str):  # CSV; numpy writes [30 100 93]
        numbers = re.split(r"\s*,\s*|\s+", numbers.strip("[]() \n"))
    if not isinstance(numbers, list) or not numbers:
        raise ValueError(f"numbers (or input) must list integers, got {shown(numbers)}")
    target = _integer("target (or output)", first_of(row, "target", "output"))
    return {"numbers": [_integer("numbers (or input)", each) for each in numbers], "target": target}


def _integer(name: str, value: object) -> int:
    text = value.strip() if isinstance(value, str) else plain_number(value)
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{name} must be integers of at most 9 digits, got {shown(value)}")
    return int(text)


def gsm8k_fields(row: Row) -> dict[str, Any]:
    """Return fields from question and answer."""
    question, answer = require_text("question", row.get("question")), row.get("answer")
    text = answer if isinstance(answer, str) else plain_number(answer)
    if gsm8k.gold(text) is None:
        raise ValueError(f"answer must end in #### and a number, got {shown(answer)}")
    return {"question": question, "answer": text}


def math500_fields(row: Row) -> dict[str, Any]:
    """Return fields from problem and answer, or a solution with a \\boxed{} answer."""
    problem, answer = require_text("problem", row.get("problem")), row.get("answer")
    if is_missing(answer):
        answer = row.get("solution")
        answer = _boxed(answer) if isinstance(answer, str) else answer
    name = "answer (or a solution with a \\boxed{})"
    return {"problem": problem, "answer": require_text(name, plain_number(answer) or answer)}


def _boxed(solution: str) -> str | None:
    *_, tail = _BOX.split(solution)
    if tail == solution:
        return None
    if tail.startswith("{"):
        answer = boxed(rf"\boxed{tail}") or ""
        if not tail.startswith(f"{{{answer}}}"):  # unclosed: truncated answer
            return None
    else:
        end = _FORMULA_END.search(tail)
        answer = tail[: end.start()] if end else tail
        if not end or end[0] == "\n":  # a word outside a formula
            answer = answer.partition(" ")[0]
        answer = answer.rstrip(" .,;:!")
    answer = answer.strip()
    return answer[1:-1] if re.fullmatch(r"\$[^$]*[^$\\]\$", answer) else answer
