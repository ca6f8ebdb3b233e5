"""Sampled completions of a run, with a per-cell check of Sudoku answers."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from weft_rl.io.safe_files import is_number, parsing
from weft_rl.rewards.sudoku import answer_digits, cells_right
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS, SIZE, completions, empty_cells
from weft_rl.runs.jsonl import read_lines

_SAMPLES = 6  # per file
_NO_DIGIT = "·"


class Cell(NamedTuple):
    """A cell of a grid. kind: `clue`, `changed` (an overwritten clue), `right` or `wrong`."""

    text: str
    kind: str


class Sample(NamedTuple):
    """A completion. grid: four rows of cells for a Sudoku, empty for other tasks."""

    name: str
    reward: str
    verdict: str
    grid: list[list[Cell]]
    prompt: str
    completion: str


class SampleGroup(NamedTuple):
    """The first held-out completions after a stage, or the last logged ones of its training."""

    stage: str
    is_held_out: bool
    samples: list[Sample]


def sample_groups(run: Path, stages: Sequence[str]) -> list[SampleGroup]:
    """Return samples of held-out completions, then of training, each in stage order."""
    files = []
    for path in (run / "completions").glob("*.jsonl"):
        stage = path.stem.removeprefix("eval-")
        order = stages.index(stage) if stage in stages else len(stages)
        files.append((stage == path.stem, order, stage, path))
    groups = []
    for is_training, _, stage, path in sorted(files):
        rows = read_lines(path)
        with parsing(path):
            chosen = deque(rows, _SAMPLES) if is_training else islice(rows, _SAMPLES)
            samples = [_sample(row) for row in chosen]
        if samples:
            groups.append(SampleGroup(stage, not is_training, samples))
    return groups


def _sample(row: Mapping[str, Any]) -> Sample:
    completion, reward = str(row.get("completion", "")), row.get("reward")
    reward = f"{reward:.3g}" if is_number(reward) else "none"
    is_sudoku = row.get("task") == "sudoku"
    grid, verdict = _sudoku(completion, row.get("fields", {})) if is_sudoku else ([], "")
    prompt = str(row.get("prompt", ""))
    return Sample(str(row.get("id", "")), reward, verdict, grid, prompt, completion)


def _sudoku(completion: str, fields: Mapping[str, Any]) -> tuple[list[list[Cell]], str]:
    puzzle, solution = str(fields.get("puzzle")), fields.get("solution")
    keys = completions(puzzle) if solution is None else [str(solution)]
    keys = [key for key in keys if len(key) == len(puzzle) == CELLS]
    if not keys:
        return [], ""
    digits = answer_digits(completion)
    # Sudokus with several solutions: use the one that shares the most cells with the answer
    key = max(keys, key=lambda key: cells_right(digits or "", puzzle, key))
    filled = (digits or "")[:CELLS].ljust(CELLS, _NO_DIGIT)
    cells = [_cell(*column) for column in zip(puzzle, filled, key, strict=True)]
    rows = [cells[start : start + SIZE] for start in range(0, CELLS, SIZE)]
    if digits is None:
        return rows, "no answer"
    kinds = [cell.kind for cell in cells]
    verdict = [f"{kinds.count('right')} of {len(empty_cells(puzzle))} empty cells right"]
    verdict += [f"{len(digits)} digits instead of {CELLS}"] if len(digits) != CELLS else []
    verdict += ["changes a clue"] if "changed" in kinds else []
    return rows, "; ".join(verdict)


def _cell(clue: str, digit: str, key: str) -> Cell:
    if clue in DIGITS:
        return Cell(clue, "clue") if digit in (clue, _NO_DIGIT) else Cell(digit, "changed")
    return Cell(digit, "right" if digit == key else "wrong")
