"""Experiment trackers: transformers' callbacks, writing into the run directory."""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.cli import require_extra
from weft_rl.config.fields import shown

PROJECT = "weft-rl"
TRACKERS = "trackers"


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    for tracker in trackers:
        require_extra(tracker, f"trackers={shown([*trackers])}")


def tracker_folder(run: Path) -> Path:
    """Tracker folder of a run directory."""
    return run.resolve() / TRACKERS


def point_trackers(trackers: Sequence[str], run: Path) -> None:
    """Set the tracker folders in the environment; call before importing trl, which reads it."""
    if trackers:
        folder = tracker_folder(run)
        folder.mkdir(parents=True, exist_ok=True)  # wandb writes elsewhere if it is missing
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")
        os.environ["WANDB_DIR"] = str(folder)
        os.environ.setdefault("WANDB_PROJECT", PROJECT)


def tracker_arguments(trackers: Sequence[str], run: Path, stage: str) -> dict[str, Any]:
    """Training arguments of a stage; sets TensorBoard's folder in the environment."""
    if not trackers:
        return {"report_to": "none"}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(tracker_folder(run) / "tensorboard" / stage)
    return {
        "report_to": [*trackers],
        "run_name": f"{run.resolve().name}-{stage}",
        "project": PROJECT,
        "trackio_static_space_id": False,  # nothing is published
    }


def close_trackers(trackers: Sequence[str]) -> None:
    """Finish a stage's wandb run, so that the next stage starts its own."""
    if "wandb" in trackers:
        import_module("wandb").finish()
