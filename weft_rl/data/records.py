"""Task records, and how a row of a file becomes the fields of each task's record."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weft_rl.config.fields import shown
from weft_rl.data.values import first_of, is_missing, plain_number, require_text
from weft_rl.rewards import gsm8k
from weft_rl.rewards.extract import boxed
from weft_rl.rewards.sudoku_grid import is_solved, keeps_clues

Row = Mapping[str, Any]  # by column in lower case

# ASCII only, unlike int(); nine digits, as many as the reward reads.
_INTEGER = re.compile(r"[0-9]{1,9}")
# Before an answer in braces or the next token; MATH has all of \boxed{5}, \boxed 5 and \fbox{5}.
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_FORMULA_END = re.compile(r"\$|\\\)|\\\]|\\end(?![A-Za-z])|\n")


@dataclass(frozen=True)
class Record:
    """One problem of a task; prompts and reward functions are given its fields.

    sudoku: puzzle (16 characters, 0 empty) and solution (16 digits); countdown: numbers (list of
    int) and target (int); gsm8k: question and answer (text that ends in #### and a number);
    math500: problem and answer (LaTeX)."""

    id: str
    task: str
    fields: dict[str, Any]


def sudoku_fields(row: Row) -> dict[str, Any]:
    """Columns puzzle and solution. Raises ValueError for a row that is wrong, as do the others."""
    puzzle, solution = row.get("puzzle"), row.get("solution")
    if not isinstance(puzzle, str) or not re.fullmatch("[0-4]{16}", puzzle):
        raise ValueError(f"Puzzle must be 16 digits from 0 to 4, got {shown(puzzle)}")
    if not isinstance(solution, str) or not re.fullmatch("[1-4]{16}", solution):
        raise ValueError(f"Solution must be 16 digits from 1 to 4, got {shown(solution)}")
    if not is_solved(solution) or not keeps_clues(puzzle, solution):
        raise ValueError(f"Solution {solution} does not solve Puzzle {puzzle}")
    return {"puzzle": puzzle, "solution": solution}


def countdown_fields(row: Row) -> dict[str, Any]:
    """Columns numbers (or nums) and target, or input ("30,100,93") and output."""
    numbers = first_of(row, "numbers", "nums", "input")
    if isinstance(numbers, str):  # of a CSV file, whose array may be numpy's: [30 100 93]
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
    """Columns question and answer."""
    question, answer = require_text("question", row.get("question")), row.get("answer")
    text = answer if isinstance(answer, str) else plain_number(answer)
    if gsm8k.gold(text) is None:
        raise ValueError(f"answer must end in #### and a number, got {shown(answer)}")
    return {"question": question, "answer": text}


def math500_fields(row: Row) -> dict[str, Any]:
    """Columns problem and answer, or a solution with a \\boxed{} for the answer."""
    problem, answer = require_text("problem", row.get("problem")), row.get("answer")
    if is_missing(answer):
        answer = row.get("solution")
        answer = _boxed(answer) if isinstance(answer, str) else answer
    name = "answer (or a solution with a \\boxed{})"
    return {"problem": problem, "answer": require_text(name, plain_number(answer) or answer)}


def _boxed(solution: str) -> str | None:
    """The answer of a solution, in its last \\boxed{5}, \\fbox{5} or \\boxed 5, or None."""
    boxes = [*_BOX.finditer(solution)]
    if not boxes:
        return None
    tail = solution[boxes[-1].end() :]
    if tail.startswith("{"):
        answer = boxed(rf"\boxed{tail}") or ""
        if not tail.startswith(f"{{{answer}}}"):  # never closed: the answer is cut off
            return None
    else:
        end = _FORMULA_END.search(tail)
        answer = tail[: end.start()] if end else tail
        if not end or end[0] == "\n":  # not within a formula: the next word
            answer = answer.partition(" ")[0]
        answer = answer.rstrip(" .,;:!")
    answer = answer.strip()
    return answer[1:-1] if re.fullmatch(r"\$[^$]*[^$\\]\$", answer) else answer
