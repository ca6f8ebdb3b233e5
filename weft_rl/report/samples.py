"""Sampled completions of a run, with a per-cell check of Sudoku answers."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from weft_rl.io.safe_files import is_number, parsing
from weft_rl.rewards.sudoku import answer_digits, cells_right
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS, SIZE, completions, empty_cells
from weft_rl.runs.jsonl import read_lines

_SAMPLES = 6  # per file
_NO_DIGIT = "·"


@dataclass(frozen=True)
class Cell:
    """A cell of a grid. kind: `clue`, `changed` (an overwritten clue), `right` or `wrong`."""

    text: str
    kind: str


@dataclass(frozen=True)
class Sample:
    """A completion. grid: four rows of cells for a Sudoku, empty for other tasks."""

    name: str
    reward: str
    verdict: str
    grid: list[list[Cell]]
    prompt: str
    completion: str


@dataclass(frozen=True)
class SampleGroup:
    """Samples from one file of completions. choice: how they were selected."""

    title: str
    choice: str
    is_held_out: bool
    samples: list[Sample]


def sample_groups(run: Path, stages: Sequence[str]) -> list[SampleGroup]:
    """Return samples of held-out completions, then of training, each in stage order."""

    def position(path: Path) -> tuple[bool, int, str]:
        stage = path.stem.removeprefix("eval-")
        order = stages.index(stage) if stage in stages else len(stages)
        return stage == path.stem, order, stage

    groups = []
    for path in sorted((run / "completions").glob("*.jsonl"), key=position):
        is_training, _, stage = position(path)
        rows = read_lines(path)
        with parsing(path):
            if is_training:
                title, choice = f"During {stage}", "the last ones that were logged"
                samples = [_sample(row) for row in deque(rows, _SAMPLES)]
            else:
                title, choice = f"After {stage}", "the first held-out problems, not picked"
                samples = [_sample(row) for row in islice(rows, _SAMPLES)]
        if samples:
            groups.append(SampleGroup(title, choice, not is_training, samples))
    return groups


def _sample(row: Mapping[str, Any]) -> Sample:
    completion, reward = str(row.get("completion", "")), row.get("reward")
    grid, verdict = [], ""
    if row.get("task") == "sudoku":
        grid, verdict = _sudoku(completion, row.get("fields", {}))
    return Sample(
        name=f"{row.get('id', '')}",
        reward=f"{reward:.3g}" if is_number(reward) else "none",
        verdict=verdict,
        grid=grid,
        prompt=str(row.get("prompt", "")),
        completion=completion,
    )


def _sudoku(completion: str, fields: Mapping[str, Any]) -> tuple[list[list[Cell]], str]:
    puzzle, solution = str(fields.get("puzzle")), fields.get("solution")
    digits = answer_digits(completion)
    keys = completions(puzzle) if solution is None else [str(solution)]
    keys = [key for key in keys if len(key) == len(puzzle) == CELLS]
    if not keys:
        return [], ""
    # Sudokus with several solutions: use the one that shares the most cells with the answer
    key = max(keys, key=lambda key: cells_right(digits or "", puzzle, key))
    filled = (digits or "")[:CELLS].ljust(CELLS, _NO_DIGIT)
    cells = [_cell(*column) for column in zip(puzzle, filled, key, strict=True)]
    rows = [cells[start : start + SIZE] for start in range(0, CELLS, SIZE)]
    if digits is None:
        return rows, "no answer"
    right = sum(cell.kind == "right" for cell in cells)
    verdict = f"{right} of {len(empty_cells(puzzle))} empty cells right"
    if len(digits) != CELLS:
        verdict += f"; {len(digits)} digits instead of {CELLS}"
    if any(cell.kind == "changed" for cell in cells):
        verdict += "; changes a clue"
    return rows, verdict


def _cell(clue: str, digit: str, key: str) -> Cell:
    if clue in DIGITS:
        return Cell(clue, "clue") if digit in (clue, _NO_DIGIT) else Cell(digit, "changed")
    return Cell(digit, "right" if digit == key else "wrong")
