"""JSON Lines files of a run: metrics, completions and other rows."""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from weft_rl.io import safe_files
from weft_rl.runs.atomic_io import write_text

logger = logging.getLogger(__name__)


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a JSON object. NaN and infinity become null, because JSON lacks them."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite, allow_nan=False) + "\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file; none if it does not exist.

    Skips invalid lines with a warning. Skips an unfinished last line silently, because a run may be
    writing it. Raises UserError if the path is not a regular file."""
    if not os.path.lexists(path):
        return
    for number, line in enumerate(safe_files.read_lines(path), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and safe_files.is_shallow(row):
            yield row
        elif line.endswith("\n"):
            _warn(path, number)


@cache  # warn once per line
def _warn(path: Path, line: int) -> None:
    logger.warning("%s:%d: not a JSON object; skipped", path, line)


def cut_lines(path: Path, stage: str, last_step: int) -> None:
    """Drop the rows of `stage` after `last_step` or without a step, before resuming there."""
    if not path.exists():
        return

    def is_kept(row: Mapping[str, Any]) -> bool:
        step = row.get("step")
        return row.get("stage") != stage or (safe_files.is_number(step) and step <= last_step)

    kept = [json.dumps(row) + "\n" for row in read_lines(path) if is_kept(row)]
    write_text(path, "".join(kept))
