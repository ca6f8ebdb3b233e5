"""What a name of a model stands for: a run directory, a stage's folder, a checkpoint or a model."""

from pathlib import Path

from weft_rl.errors import UserError
from weft_rl.runs.folder import CONFIG, FINISHED, checkpoints, finished_stages

MODEL_FILES = ("config.json", "adapter_config.json")


def checkpoint_of(place: str, option: str = "model") -> str:
    """The folder of the checkpoint that a place stands for; any other place as it is.

    A run directory stands for its last finished stage, a stage's folder for its newest checkpoint.
    option: what named the place. Raises UserError for a run without a finished stage, and for a
    stage without a checkpoint."""
    folder = Path(place)
    if not folder.is_dir() or any((folder / name).exists() for name in MODEL_FILES):
        return place
    if (folder / FINISHED).exists() or (folder / "checkpoints").is_dir():
        finished = finished_stages(folder)
        if not finished:
            raise UserError(f"{option}={place}: this run has finished no stage yet")
        return str(folder / [*finished.values()][-1])
    run, stage = folder.resolve().parents[1], folder.resolve().name
    if folder.resolve().parent.name == "checkpoints" and (run / CONFIG).exists():
        newest = checkpoints(run, stage)[-1:]
        if not newest:
            raise UserError(f"{option}={place}: stage {stage} has no checkpoint yet")
        return str(folder / newest[0].name)
    return place


def run_of(checkpoint: str) -> Path | None:
    """The run directory of a checkpoint, RUN/checkpoints/<stage>/step-N; None for any other."""
    above = Path(checkpoint).resolve().parents
    run = above[2] if len(above) > 2 and above[1].name == "checkpoints" else None
    return run if run is not None and (run / CONFIG).exists() else None
