"""Run directory: files, checkpoints, and references to checkpoints."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.io import safe_files
from weft_rl.runs.checksums import find_corruption
from weft_rl.runs.renamed import with_new_keys

CONFIG, METRICS, EVAL = "config.yaml", "metrics.jsonl", "eval.json"
# Entry of a stage in eval.json beside its tasks: mean, se, n, before, unigram_entropy.
NELBO = "nelbo"
CURVES, REPORT = "curves.png", "report.html"
ENTROPY_HEATMAP, DENOISING_REPLAY = "entropy_heatmap-{stage}.json", "completions/trace-{stage}.json"
FINISHED = "stages.json"  # completed stages -> last checkpoint, relative to the run directory
MODEL_FILES = ("config.json", "adapter_config.json")
# Table label of a given model; eval.json calls it "base".
INITIAL = "initial model"
_FIX = "repair or remove it"


def read_json(path: Path, default: Any) -> Any:
    """Return the JSON value of a file, or `default` if it does not exist.

    Raises UserError if the file cannot be read or its value has another type than `default`."""
    if not os.path.lexists(path):
        return default
    value = safe_files.read_json(path, _FIX)
    if not isinstance(value, type(default)):
        expected = type(default).__name__
        raise UserError(f"{path}: must be a {expected}, not {str(value)[:40]!r}; {_FIX}")
    return value


def read_results(run: Path) -> dict[str, dict[str, Any]]:
    """Return the content of eval.json, scores by stage and task; empty without the file.

    Raises UserError like read_json, and for a stage or task without scores."""
    results = read_json(run / EVAL, {})
    for stage, tasks in results.items():
        for task, entry in tasks.items() if isinstance(tasks, dict) else [(tasks, None)]:
            if not isinstance(entry, dict):
                raise UserError(f"{run / EVAL}: {stage}: {task}: has no scores; {_FIX}")
    return results


def finished_stages(run: Path) -> dict[str, str]:
    """Return the last checkpoint of each completed stage, relative to the run directory.

    Raises UserError like read_json, and for a checkpoint outside checkpoints/."""
    finished = read_json(run / FINISHED, {})
    for stage, place in finished.items():
        parts = Path(place).parts if isinstance(place, str) else ()
        if parts[:1] != ("checkpoints",) or ".." in parts:
            raise UserError(
                f"{run / FINISHED}: {stage}: {place!r} is not a folder below checkpoints/; {_FIX}"
            )
    return finished


def read_config(run: Path) -> dict[str, Any]:
    """Return config.yaml with current keys, or {}. Raises UserError if it is not a mapping."""
    path = run / CONFIG
    settings = safe_files.read_yaml(path) or {} if os.path.lexists(path) else {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise UserError(f"{path}: has no options; {_FIX}")
    return with_new_keys(settings)


def checkpoint_path(run: Path, stage: str, step: int) -> Path:
    """Return the folder of a checkpoint."""
    return run / "checkpoints" / stage / f"step-{step}"


def checkpoints(run: Path, stage: str) -> list[Path]:
    """Return the complete checkpoints of a stage, in order of steps."""
    paths = (run / "checkpoints" / stage).glob("step-*")
    steps = {path.name.removeprefix("step-"): path for path in paths}
    return [steps[step] for step in sorted(filter(str.isdecimal, steps), key=int)]


def newest_checkpoint(run: Path, stage: str) -> Path | None:
    """Return the checkpoint of a stage with the highest step; None without checkpoints."""
    return next(reversed(checkpoints(run, stage)), None)


def latest_valid_checkpoint(
    run: Path, stage: str, log: Callable[[str], None], unusable: Callable[[Path], str | None]
) -> Path | None:
    """Return a stage's newest restorable checkpoint; None without one.

    unusable: describes a problem in a checkpoint with valid checksums, or returns None. Corrupt
    checkpoints are logged and renamed to step-N.damaged."""
    for path in reversed(checkpoints(run, stage)):
        problem = find_corruption(path) or unusable(path)
        if problem is None:
            return path
        log(quarantine(path, problem))
    return None


def quarantine(checkpoint: Path, problem: str) -> str:
    """Rename a corrupt checkpoint to step-N.damaged and return a log line."""
    target, number = checkpoint.with_name(f"{checkpoint.name}.damaged"), 1
    shutil.rmtree(target, ignore_errors=True)
    while os.path.lexists(target):  # a file, a link, or an undeletable folder
        number += 1
        target = checkpoint.with_name(f"{checkpoint.name}.damaged-{number}")
    if checkpoint.exists():
        checkpoint.replace(target)
    return f"{checkpoint}: {problem}; kept as {target.name}, resuming from the checkpoint before it"


def checkpoint_of(place: str, option: str = "model") -> str:
    """Return the checkpoint of a run directory or stage folder; return other paths unchanged.

    For a run: the last completed stage's; for a stage: the newest. option: key in error messages.
    Raises UserError if there is no checkpoint yet."""
    folder = Path(place)
    if not folder.is_dir() or any((folder / name).exists() for name in MODEL_FILES):
        return place
    if (folder / FINISHED).exists() or (folder / "checkpoints").is_dir():
        finished = finished_stages(folder)
        if not finished:
            raise UserError(f"{option}={place}: this run has completed no stage yet")
        return str(folder / [*finished.values()][-1])
    run, stage = folder.resolve().parent.parent, folder.resolve().name
    if folder.resolve().parent.name != "checkpoints" or not (run / CONFIG).exists():
        return place
    newest = newest_checkpoint(run, stage)
    if newest is None:
        raise UserError(f"{option}={place}: stage {stage} has no checkpoint yet")
    return str(folder / newest.name)


def run_of(checkpoint: str) -> Path | None:
    """Return the run directory of RUN/checkpoints/<stage>/step-N; None for other folders."""
    parents = Path(checkpoint).resolve().parents
    run = parents[2] if len(parents) > 2 and parents[1].name == "checkpoints" else None
    return run if run is not None and (run / CONFIG).exists() else None
