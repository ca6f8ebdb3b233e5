"""Dashboards beside metrics.jsonl: whether they are installed, and that they write into the run.

An API key is the tracker's own matter, taken from its environment; no option holds one, so none is
written."""

import os
from collections.abc import Sequence
from pathlib import Path

from weft_rl.cli import require_extra
from weft_rl.config.fields import shown

PROJECT = "weft-rl"
TRACKERS = "trackers"


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    for tracker in trackers:
        require_extra(tracker, f"trackers={shown([*trackers])}")


def tracker_folder(run: Path) -> Path:
    """Where in a run folder the trackers write."""
    return run.resolve() / TRACKERS


def point_trackers(trackers: Sequence[str], run: Path) -> None:
    """Set in the environment, the only way there is, where the trackers write.

    Trackio reads it when it is imported, which trl does, so call this first."""
    if trackers:
        folder = tracker_folder(run)
        folder.mkdir(parents=True, exist_ok=True)  # wandb goes elsewhere if it is not there
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")
        os.environ["WANDB_DIR"] = str(folder)
        os.environ.setdefault("WANDB_PROJECT", PROJECT)
