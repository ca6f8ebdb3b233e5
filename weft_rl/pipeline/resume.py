"""Create or resume a run directory, with config.yaml."""

import os
import platform
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from itertools import count
from pathlib import Path

import yaml

import weft_rl
from weft_rl.cli import writing
from weft_rl.config.load import to_yaml
from weft_rl.config.overrides import changed_options
from weft_rl.config.schema import STAGES, RunConfig
from weft_rl.distributed import rank_and_world
from weft_rl.errors import Interrupted, UserError
from weft_rl.io.safe_files import read_text
from weft_rl.runs.atomic_io import write_text
from weft_rl.runs.folder import CONFIG, finished_stages, newest_checkpoint, read_config
from weft_rl.runs.lock import run_lock
from weft_rl.trainers.infra.trackers import tracker_folder

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")


@contextmanager
def claim_run_dir(config: RunConfig) -> Generator[Path]:
    """Lock a new or resumable run directory and write config.yaml.

    Other ranks wait for the first one. Raises UserError if the directory cannot be written, is in
    use, or has other content, another configuration or other stages."""
    if rank_and_world()[0] != 0:
        yield _wait_until_claimed(config)
        return
    run = Path(config.out) if config.out else fresh_folder("-".join(config.stages))
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        _require_resumable(config, run)  # before creating the lock file
    with run_lock(run):
        with writing(run):
            _require_resumable(config, run)  # again: another process may have written
            write_text(run / CONFIG, to_yaml(config) + environment())
        yield run


def environment() -> str:
    """Return package versions and git revision as YAML, for config.yaml."""
    root = Path(__file__).parents[2]
    revision = ""
    if (root / ".git").exists():
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    versions = {"weft_rl": weft_rl.__version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in _PACKAGES}
    values = {"versions": versions, "revision": revision or "unknown"}
    return yaml.safe_dump(values, sort_keys=False)


def fresh_folder(name: str) -> Path:
    """Create runs/<time>-<name>, with a number appended if it exists."""
    first = f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    for number in count(1):
        folder = Path(first if number == 1 else f"{first}-{number}")
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                continue
        break
    return folder


def _wait_until_claimed(config: RunConfig) -> Path:
    """Return the run directory once config.yaml exists. Raises Interrupted after a timeout."""
    run, parent = Path(str(config.out)), os.getppid()
    limit = time.monotonic() + config.reliability.stall_timeout
    while not (run / CONFIG).exists():
        if os.getppid() != parent or time.monotonic() > limit:
            raise Interrupted(f"out={run}: the first process has not created it")
        time.sleep(0.1)
    return run


def require_resumable(config: RunConfig) -> None:
    """Raise UserError if `out` exists and a run with these options may not use it."""
    if config.out and Path(config.out).exists():
        with writing(Path(config.out)):
            _require_resumable(config, Path(config.out))


def _require_resumable(config: RunConfig, run: Path) -> None:
    """Raise UserError unless the directory is empty, without results, or resumable."""
    if not (run / CONFIG).exists():
        # hidden files may be the lock of a process that is about to write config.yaml
        if any(not path.name.startswith(".") for path in run.iterdir()):
            raise UserError(f"out={run}: is not empty and has no run; choose another out")
        return
    if has_no_results(run):
        return
    if config.resume == "never":
        raise UserError(
            f"out={run}: has a run already; remove resume=never to resume it, or choose another out"
        )
    finished = finished_stages(run)
    newest = {stage: newest_checkpoint(run, stage) for stage in STAGES if stage not in finished}
    stopped = {stage: path for stage, path in newest.items() if path}
    saved = read_text(run / CONFIG, "choose another out")
    different = changed_options(saved, config, [*finished, *stopped])
    if different:
        raise UserError(
            f"out={run}: has a run of another configuration (different: {', '.join(different)}); "
            "choose another out, or repeat its options"
        )
    # each stage starts from the previous one, an interrupted stage from its own checkpoint
    done = [stage for stage in finished if stage != "base"]
    stopped.pop("base", None)
    planned = [stage for stage in config.in_order if stage not in ("base", "eval")]
    # several are interrupted only if an earlier one is retrained: order them by stages=
    held = [*done, *sorted(stopped, key=[*planned, *stopped].index)]
    if any(old != new for old, new in zip(held, planned, strict=False)):
        origin = done[-1] if done else f"model={config.model}"
        notes = {stage: f" (from {origin}, {path.name})" for stage, path in stopped.items()}
        raise UserError(
            f"out={run}: has {' and then '.join(each + notes.get(each, '') for each in held)}, "
            f"which stages=[{','.join(config.stages)}] does not continue; start with "
            f"stages=[{','.join(held)}], or choose another out"
        )


def has_no_results(run: Path) -> bool:
    """Return whether a run stopped before it produced results, so its directory can be reused."""
    ignored = (CONFIG, tracker_folder(run).name)
    for path in run.rglob("*"):
        top = path.relative_to(run).parts[0]
        hidden = path.parent == run and top.startswith(".")
        hidden |= top.startswith(".answers-")  # of stage a2d, keyed by the options
        if path.is_file() and top not in ignored and not hidden:
            return False
    # do not overwrite the config.yaml of another program
    return {item.name for item in fields(RunConfig)} <= read_config(run).keys()
