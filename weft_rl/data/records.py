"""Task records and the files they are read from, with errors that name file and line."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rewards import gsm8k
from rewards.extract import boxed
from rewards.grid import is_solved, keeps_clues
from weft_rl.errors import UserError

# The published evaluation sets that ship with the package; see files/PROVENANCE.md.
_PUBLISHED = {"sudoku": "sudoku_4x4_test.csv", "countdown": "countdown_cd3_test.jsonl"}
# ASCII only, which int() is not; nine digits, as many as the reward reads.
_INTEGER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Record:
    """One problem of a task: its fields are what prompts and reward functions are given.

    sudoku: puzzle (16 characters, 0 empty) and solution (16 digits); countdown: numbers (list of
    int) and target (int); gsm8k: question and answer (text that ends in #### and a number);
    math500: problem and answer (LaTeX)."""

    id: str
    task: str
    fields: dict[str, Any]


def load_records(task: str, data: str) -> list[Record]:
    """The records of a file (.csv, anything else is JSONL), or of a test set of the package.

    data: a path, or "published" for Sudoku and Countdown. Columns, any case: Puzzle and Solution
    for sudoku; for countdown input ("30,100,93") and output, or numbers (or nums) and target;
    question and answer for gsm8k; problem and answer, or a solution with a \\boxed{}, for math500.
    Raises UserError naming file and line for content that is not of the task's form, a record that
    occurs twice, and a file without records."""
    if data == "published" and task in _PUBLISHED:
        place = resources.files("weft_rl.data") / "files" / _PUBLISHED[task]
        with resources.as_file(place) as path:
            return make_records(task, _rows(path), str(path), "published")
    path = Path(data)
    return make_records(task, _rows(path), str(path), path.name)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    return read_csv(path) if path.suffix == ".csv" else read_jsonl(path)


def make_records(
    task: str, rows: Iterable[tuple[int, Mapping[str, Any]]], place: str, name: str
) -> list[Record]:
    """Records of numbered rows, as load_records makes them; place names the rows in a message,
    name begins the records' ids. Raises UserError like load_records."""
    if task not in FIELDS:
        raise UserError(f"task={task}: must be one of {', '.join(FIELDS)}")
    records: list[Record] = []
    first_line: dict[str, int] = {}
    for line, row in rows:
        try:
            fields = FIELDS[task]({key.lower(): value for key, value in row.items()})
        except ValueError as error:
            raise UserError(f"{place}:{line}: {error}; mend or remove the record") from error
        content = repr(fields)
        if content in first_line:
            raise UserError(
                f"{place}:{line}: the same record as in line {first_line[content]}; remove one"
            )
        first_line[content] = line
        records.append(Record(f"{name}-{len(records)}", task, fields))
    if not records:
        raise UserError(f"{place}: holds no records; name a file that does")
    return records


def fail(error: UserError) -> None:
    """Raise the error: what becomes of a bad record unless its reader is told otherwise."""
    raise error


def read_jsonl(
    path: Path, reject: Callable[[UserError], None] = fail
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSONL file; empty lines are passed over.

    Raises UserError for a file that cannot be read. A line that is no JSON object or not UTF-8
    goes to `reject`, and is passed over if that returns."""
    for number, line in _lines(path):
        try:
            text = _decoded(path, number, line)
            if text.strip():
                yield number, _json_object(path, number, text)
        except UserError as error:
            reject(error)


def _json_object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    # nested too deep, a number of thousands of digits, or plainly no JSON
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:{number}: not JSON ({error}); mend or remove the line") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: must be a JSON object like {{...}}; mend the line")
    return row


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a CSV file with a header, by column name.

    Raises UserError for a file that cannot be read and for a row that does not fit the header."""
    reader = csv.reader((_decoded(path, *line) for line in _lines(path)), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            if header is None:
                header = row
            elif row:  # empty lines are passed over
                if len(row) != len(header):
                    raise UserError(
                        f"{path}:{reader.line_num}: {len(row)} columns, but the header has "
                        f"{len(header)}; mend the line"
                    )
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}); mend the line") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a file that exists"
        ) from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        # line by line, to tell which; utf-8-sig: spreadsheets write a byte order mark in front
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: is not UTF-8 text ({error}); convert it") from error


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
    numbers = row.get("numbers", row.get("nums", row.get("input")))
    if isinstance(numbers, str):
        numbers = numbers.strip("[] ").split(",")
    if not isinstance(numbers, list) or not numbers:
        raise ValueError(f"numbers (or input) must list integers, got {_short(numbers)}")
    target = _integer("target (or output)", row.get("target", row.get("output")))
    return {
        "numbers": [_integer("numbers (or input)", value) for value in numbers],
        "target": target,
    }


def _integer(name: str, value: object) -> int:
    text = value.strip() if isinstance(value, str) else repr(value)
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{name} must be integers of at most 9 digits, got {_short(value)}")
    return int(text)


def _short(value: object) -> str:
    """A value as it may stand in a message."""
    return repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."


def _gsm8k_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    question, answer = _text("question", row.get("question")), row.get("answer")
    if type(answer) not in (int, float, str) or gsm8k.gold(answer) is None:
        raise ValueError(f"answer must end in #### and a number, got {_short(answer)}")
    return {"question": question, "answer": str(answer)}


def _math500_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = row.get("answer")
    if answer is None and isinstance(row.get("solution"), str):
        answer = boxed(row["solution"])
    return {
        "problem": _text("problem", row.get("problem")),
        "answer": _text("answer (or a solution with a \\boxed{})", answer),
    }


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {_short(value)}")
    return value


# A row of a file to the fields of a record, by task; a ValueError says what is wrong with the row.
FIELDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "sudoku": _sudoku_fields,
    "countdown": _countdown_fields,
    "gsm8k": _gsm8k_fields,
    "math500": _math500_fields,
}
