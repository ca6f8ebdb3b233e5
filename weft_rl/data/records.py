"""Task records and the files they are read from, with errors that name file and line."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from weft_rl.config.fields import shown
from weft_rl.data.files import read_rows
from weft_rl.data.json_rows import Row
from weft_rl.data.rejects import Rejects, fail
from weft_rl.data.values import check_unicode, is_missing, plain_number
from weft_rl.errors import UserError
from weft_rl.rewards import gsm8k
from weft_rl.rewards.extract import boxed
from weft_rl.rewards.sudoku_grid import is_solved, keeps_clues

# The published evaluation sets that ship with the package; see files/PROVENANCE.md.
_PUBLISHED = {"sudoku": "sudoku_4x4_test.csv", "countdown": "countdown_cd3_test.jsonl"}
# ASCII only, which int() is not; nine digits, as many as the reward reads.
_INTEGER = re.compile(r"[0-9]{1,9}")
# Before an answer in braces or the next token; MATH has all of \boxed{5}, \boxed 5 and \fbox{5}.
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_FORMULA_END = re.compile(r"\$|\\\)|\\\]|\\end(?![A-Za-z])|\n")


@dataclass(frozen=True)
class Record:
    """One problem of a task: its fields are what prompts and reward functions are given.

    sudoku: puzzle (16 characters, 0 empty) and solution (16 digits); countdown: numbers (list of
    int) and target (int); gsm8k: question and answer (text that ends in #### and a number);
    math500: problem and answer (LaTeX)."""

    id: str
    task: str
    fields: dict[str, Any]


def load_records(task: str, data: str, rejects: Rejects | None = None) -> list[Record]:
    """The records of a file, or of a test set of the package.

    data: a path, whose file is read by read_rows, or "published" for Sudoku and Countdown. Columns,
    any case: Puzzle and Solution for sudoku; for countdown input ("30,100,93") and output, or
    numbers (or nums) and target; question and answer for gsm8k; problem and answer, or a solution
    with a \\boxed{}, for math500. rejects: what becomes of records that are not of the task's form,
    or occur twice; None: those raise UserError, these are skipped. Raises UserError naming file and
    line, and for a file without records."""
    if data == "published" and task in _PUBLISHED:
        place = resources.files("weft_rl.data") / "files" / _PUBLISHED[task]
        with resources.as_file(place) as path:
            rows = read_rows(path, COLUMNS[task])
            return make_records(task, rows, str(path), "published", rejects)
    path = Path(data)
    rows = read_rows(path, COLUMNS.get(task), rejects or fail)
    return make_records(task, rows, str(path), path.name, rejects)


def make_records(
    task: str, rows: Iterable[Row], place: str, name: str, rejects: Rejects | None = None
) -> list[Record]:
    """Records of rows, as load_records makes them; place names their source in a message, name
    begins the records' ids. Raises UserError like load_records."""
    if task not in FIELDS:
        raise UserError(f"task={task}: must be one of {', '.join(FIELDS)}")
    rejects = rejects or Rejects("error", None)
    records: list[Record] = []
    places: dict[str, str] = {}
    for where, row in rows:
        try:
            fields = FIELDS[task]({key.lower(): value for key, value in row.items()})
        except ValueError as error:
            rejects(UserError(f"{where}: {error}{_others(task, row)}; mend or remove the record"))
            continue
        content = repr(fields)
        if content in places:
            rejects.repeat(where, places[content])
            continue
        places[content] = where
        records.append(Record(f"{name}-{len(records)}", task, fields))
    if not records:
        left_out = "".join(
            f"; {len(rejects.reasons)} left out, as {why}" for why in rejects.reasons[:1]
        )
        raise UserError(f"{place}: holds no records{left_out}; name a file that does")
    return records


def _others(task: str, row: Mapping[str, Any]) -> str:
    """The columns of a row that has none of the task's."""
    known = COLUMNS.get(task)
    is_strange = known is not None and known.isdisjoint(key.lower() for key in row)
    return f" (its columns are {shown([*row])})" if is_strange else ""


def _sudoku_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    puzzle, solution = row.get("puzzle"), row.get("solution")
    if not isinstance(puzzle, str) or not re.fullmatch("[0-4]{16}", puzzle):
        raise ValueError(f"Puzzle must be 16 digits from 0 to 4, got {_short(puzzle)}")
    if not isinstance(solution, str) or not re.fullmatch("[1-4]{16}", solution):
        raise ValueError(f"Solution must be 16 digits from 1 to 4, got {_short(solution)}")
    if not is_solved(solution) or not keeps_clues(puzzle, solution):
        raise ValueError(f"Solution {solution} does not solve Puzzle {puzzle}")
    return {"puzzle": puzzle, "solution": solution}


def _countdown_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    numbers = _first(row, "numbers", "nums", "input")
    if isinstance(numbers, str):  # of a CSV file, whose array may be numpy's: [30 100 93]
        numbers = re.split(r"\s*,\s*|\s+", numbers.strip("[]() \n"))
    if not isinstance(numbers, list) or not numbers:
        raise ValueError(f"numbers (or input) must list integers, got {_short(numbers)}")
    target = _integer("target (or output)", _first(row, "target", "output"))
    return {
        "numbers": [_integer("numbers (or input)", value) for value in numbers],
        "target": target,
    }


def _first(row: Mapping[str, Any], *names: str) -> object:
    """The first of some columns that has a value: a file made of several has empty ones."""
    return next((row[name] for name in names if not is_missing(row.get(name))), None)


def _integer(name: str, value: object) -> int:
    text = value.strip() if isinstance(value, str) else plain_number(value)
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{name} must be integers of at most 9 digits, got {_short(value)}")
    return int(text)


def _short(value: object) -> str:
    """A value as it may stand in a message."""
    return repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."


def _gsm8k_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    question, answer = _text("question", row.get("question")), row.get("answer")
    text = answer if isinstance(answer, str) else plain_number(answer)
    if gsm8k.gold(text) is None:
        raise ValueError(f"answer must end in #### and a number, got {_short(answer)}")
    return {"question": question, "answer": text}


def _math500_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    problem, answer = _text("problem", row.get("problem")), _first(row, "answer", "solution")
    if is_missing(row.get("answer")) and isinstance(answer, str):
        answer = _boxed(answer)
    name = "answer (or a solution with a \\boxed{})"
    return {"problem": problem, "answer": _text(name, plain_number(answer) or answer)}


def _boxed(solution: str) -> str | None:
    """The answer of a solution, in its last \\boxed{5}, \\fbox{5} or \\boxed 5, or None."""
    boxes = [*_BOX.finditer(solution)]
    if not boxes:
        return None
    rest = solution[boxes[-1].end() :]
    if rest.startswith("{"):
        answer = boxed(rf"\boxed{rest}") or ""
        if not rest.startswith(f"{{{answer}}}"):  # never closed: a key must be whole
            return None
    else:
        end = _FORMULA_END.search(rest)
        answer = rest[: end.start()] if end else rest
        if not end or end[0] == "\n":  # not within a formula: the next word
            answer = answer.partition(" ")[0]
        answer = answer.rstrip(" .,;:!")
    answer = answer.strip()
    return answer[1:-1] if re.fullmatch(r"\$[^$]*[^$\\]\$", answer) else answer


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {_short(value)}")
    check_unicode(name, value)
    return value


# A row of a file to the fields of a record, by task; a ValueError says what is wrong with the row.
FIELDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "sudoku": _sudoku_fields,
    "countdown": _countdown_fields,
    "gsm8k": _gsm8k_fields,
    "math500": _math500_fields,
}
# The columns that each of these looks at, in lower case; a task of one's own may look at any.
COLUMNS: dict[str, frozenset[str]] = {
    "sudoku": frozenset({"puzzle", "solution"}),
    "countdown": frozenset({"numbers", "nums", "input", "target", "output"}),
    "gsm8k": frozenset({"question", "answer"}),
    "math500": frozenset({"problem", "answer", "solution"}),
}
