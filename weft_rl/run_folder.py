"""A run's folder, made or taken up again."""

import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import weft_rl
from weft_rl.config.load import diff_configs, to_yaml
from weft_rl.config.schema import COLD_STARTS, RunConfig
from weft_rl.errors import UserError
from weft_rl.runs import CONFIG, finished_stages, newest_checkpoint, write_text
from weft_rl.trackers import TRACKERS

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")


def environment() -> str:
    """Versions and revision as YAML, for config.yaml."""
    root = Path(__file__).parents[1]
    revision = ""
    if (root / ".git").exists():
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    lines = [
        "versions:",
        f"  weft_rl: {weft_rl.__version__}",
        f"  python: {platform.python_version()}",
    ]
    lines += [f"  {name}: {version(name)}" for name in _PACKAGES]
    return "\n".join([*lines, f"revision: {revision or 'unknown'}", ""])


def claim_folder(config: RunConfig) -> Path:
    """The run's folder, made if it is not there.

    Raises UserError when it cannot be made, or holds files and no run."""
    run = Path(config.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{'-'.join(config.stages)}")
    try:
        run.mkdir(parents=True, exist_ok=True)
        foreign = not (run / CONFIG).exists() and _holds_files(run)
    except OSError as error:
        raise _unwritable(run, error) from error
    if foreign:
        raise UserError(f"out={run}: is not empty and holds no run; choose another out")
    return run


def open_run(config: RunConfig, run: Path) -> None:
    """Begin a run in the folder that this process holds, or take up one of the same configuration.

    One that has nothing yet but its configuration, because a stage refused it, is begun anew.
    Raises UserError when the folder cannot be written, holds a run of another configuration or of
    other stages, or holds any run while resume=never."""
    known = run / CONFIG
    try:
        if known.exists() and _holds_files(run):
            if config.resume == "never":
                raise UserError(f"out={run}: holds a run already; choose another out")
            different = diff_configs(known.read_text(encoding="utf-8"), config)
            if different:
                raise UserError(
                    f"out={run}: holds a run of another configuration (different: "
                    f"{', '.join(different)}); choose another out, or repeat its options"
                )
            check_lineage(config, run)
        write_text(known, to_yaml(config) + environment())
    except OSError as error:
        raise _unwritable(run, error) from error


def _holds_files(run: Path) -> bool:
    """Whether there are files but for the configuration, what trackers wrote, which begin before a
    stage looks at its options, and hidden ones, which are a process's that is at it."""
    names = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return any(
        name.parts[0] not in (CONFIG, TRACKERS)
        and not any(part.startswith(".") for part in name.parts)
        for name in names
    )


def _unwritable(run: Path, error: OSError) -> UserError:
    return UserError(f"out={run}: cannot be written ({error.strerror}); choose another out")


def check_lineage(config: RunConfig, run: Path) -> None:
    """Raise UserError unless the stages go on from those that the folder holds, or are its first.

    Each stage starts from the one before it; one with checkpoints that is not through as well."""
    done = [stage for stage in finished_stages(run) if stage != "base"]
    begun = [
        stage
        for stage in (*COLD_STARTS, "rl")
        if stage not in done and newest_checkpoint(run, stage)
    ]
    held = [*done, *begun]
    if any(one != other for one, other in zip(held, config.trained, strict=False)):
        names = [*done, *(f"{stage} (not through)" for stage in begun)]
        rest = f"stages=[{','.join(held)}], which is not run again"
        if begun:
            rest = f"stages=[{','.join(held)}], which goes on with {begun[0]}"
        raise UserError(
            f"out={run}: holds {' and then '.join(names)}, which "
            f"stages=[{','.join(config.stages)}] does not go on from; begin with {rest}, or choose "
            "another out"
        )
