"""Dashboards beside metrics.jsonl: transformers' own callbacks, told the trainer's own logs."""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from weft_rl.trainers.infra.trackers import PROJECT, tracker_folder


def tracker_arguments(trackers: Sequence[str], run: Path, stage: str) -> dict[str, Any]:
    """The arguments of a stage's trainer for these trackers.

    TensorBoard's folder is set in the environment, which its callback reads when it is made."""
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
    """End a stage's runs, so that the next stage's have names of their own."""
    if "wandb" in trackers:
        import_module("wandb").finish()
