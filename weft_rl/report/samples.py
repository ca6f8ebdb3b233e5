"""Completions of a run folder, a few of each stage, judged cell by cell for a reader."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from weft_rl.io.safe_files import is_number, parsing
from weft_rl.rewards.sudoku import answer_digits, cells_right
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS, SIZE, completions, empty_cells
from weft_rl.runs.jsonl import read_lines

# Enough to see what a model does, without scrolling past it.
_SAMPLES = 6
# Stands where the answer has no digit.
_NONE = "·"


@dataclass(frozen=True)
class Cell:
    """A cell of a grid: what stands in it, and `clue`, `changed`, `right` or `wrong`."""

    text: str
    kind: str


@dataclass(frozen=True)
class Sample:
    """A completion; `grid` has four rows of cells for a Sudoku and is empty for anything else."""

    name: str
    reward: str
    verdict: str
    grid: list[list[Cell]]
    prompt: str
    completion: str


@dataclass(frozen=True)
class SampleGroup:
    """Some lines of one file of completions."""

    title: str
    choice: str  # which lines these are
    is_held_out: bool
    samples: list[Sample]


def sample_groups(run: Path, stages: Sequence[str]) -> list[SampleGroup]:
    """Held-out completions first, then those of training; each in the order of the stages."""
    order = {stage: place for place, stage in enumerate(stages)}
    groups = []
    for path in (run / "completions").glob("*.jsonl"):
        stage, rows = path.stem.removeprefix("eval-"), read_lines(path)
        held_out = stage != path.stem
        if held_out:
            chosen, choice = islice(rows, _SAMPLES), "the first held-out problems, not picked"
        else:
            chosen, choice = deque(rows, _SAMPLES), "the last ones that were logged"
        with parsing(path):
            samples = [_sample(row) for row in chosen]
        title = f"{'After' if held_out else 'During'} {stage}"
        place = (not held_out, order.get(stage, len(order)), stage)
        groups.append((place, SampleGroup(title, choice, held_out, samples)))
    return [group for _, group in sorted(groups, key=itemgetter(0)) if group.samples]


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
    """The answer's grid, judged cell by cell as the reward does, and the verdict in words."""
    puzzle, solution = str(fields.get("puzzle")), fields.get("solution")
    digits = answer_digits(completion)
    keys = completions(puzzle) if solution is None else [str(solution)]
    keys = [key for key in keys if len(key) == len(puzzle) == CELLS]
    if not keys:
        return [], ""
    # with several solutions the one that agrees best
    key = max(keys, key=lambda key: cells_right(digits or "", puzzle, key))
    filled = (digits or "")[:CELLS].ljust(CELLS, _NONE)
    cells = [_cell(*place) for place in zip(puzzle, filled, key, strict=True)]
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
        return Cell(clue, "clue") if digit in (clue, _NONE) else Cell(digit, "changed")
    return Cell(digit, "right" if digit == key else "wrong")
