"""A run folder taken up: whose it is, and whether the stages go on from those that it holds."""

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

import weft_rl
from weft_rl.cli import FULL
from weft_rl.config.identity import changed_options
from weft_rl.config.load import to_yaml
from weft_rl.config.schema import STAGES, RunConfig
from weft_rl.errors import Interrupted, UserError
from weft_rl.io import safe_files
from weft_rl.runs.folder import CONFIG, finished_stages, newest_checkpoint, read_config, write_text
from weft_rl.trainers.infra.trackers import tracker_folder

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")


def environment() -> str:
    """Versions and revision as YAML, for config.yaml."""
    root = Path(__file__).parents[2]
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


def open_run(config: RunConfig) -> Path:
    """Create the run folder, or look at the one that is there; writes nothing into it.

    Raises UserError as check_folder does, and when the folder cannot be made."""
    if config.out is None:
        return fresh_folder("-".join(config.stages))
    run = Path(config.out)
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        check_folder(config, run)
    return run


def fresh_folder(name: str) -> Path:
    """Make runs/<time>-<name>, with a number behind it where another process has just made one."""
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


def take_up(config: RunConfig, run: Path) -> None:
    """Write the configuration into the folder, which this process alone writes to.

    Raises UserError as open_run does: another process may have been there since."""
    with writing(run):
        check_folder(config, run)
        write_text(run / CONFIG, to_yaml(config) + environment())


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Name a folder of `out=` that the system refuses in a UserError; a full disk is none of the
    user's mistakes, and stays what it is."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(
            f"out={folder}: cannot be written ({error.strerror}); choose another out"
        ) from error


def wait_until_opened(config: RunConfig) -> Path:
    """The run directory, once the first process has opened it: until then nothing may be written.

    Raises Interrupted when what started the processes ends first, or after
    reliability.stall_timeout seconds."""
    run, parent = Path(str(config.out)), os.getppid()
    limit = time.monotonic() + config.reliability.stall_timeout
    while not (run / CONFIG).exists():
        if os.getppid() != parent or time.monotonic() > limit:
            raise Interrupted(f"out={run}: the first process has not opened it")
        time.sleep(0.1)
    return run


def check_folder(config: RunConfig, run: Path) -> None:
    """Raise UserError unless the folder is empty, untouched, or holds a run that this one goes on
    with.

    Refused are other files, another configuration, any run under resume=never, and stages that do
    not go on from the folder's."""
    known = run / CONFIG
    if not known.exists():
        # a hidden file is another process's of this run, about to write the configuration
        if any(not path.name.startswith(".") for path in run.iterdir()):
            raise UserError(f"out={run}: is not empty and holds no run; choose another out")
        return
    if is_untouched(run):
        return
    if config.resume == "never":
        raise UserError(
            f"out={run}: holds a run already; leave out resume=never to go on with it, or choose "
            "another out"
        )
    saved = safe_files.read_text(known, "choose another out")
    different = changed_options(saved, config, held_stages(run))
    if different:
        raise UserError(
            f"out={run}: holds a run of another configuration (different: "
            f"{', '.join(different)}); choose another out, or repeat its options"
        )
    check_lineage(config, run)


def is_untouched(run: Path) -> bool:
    """Whether a run has left its configuration and no result of any work: no file but those of its
    lock and its trackers.

    A mistake that a stage found has ended it; the mended command may have the folder."""
    own = (CONFIG, tracker_folder(run).name)
    for path in run.rglob("*"):
        top = path.relative_to(run).parts[0]
        hidden = path.parent == run and top.startswith(".")
        if path.is_file() and top not in own and not hidden:
            return False
    # any other program's config.yaml is not written over
    return {item.name for item in fields(RunConfig)} <= read_config(run).keys()


def held_stages(run: Path) -> list[str]:
    """The stages of which a folder holds weights: those that are through, or have a checkpoint."""
    finished = finished_stages(run)
    return [stage for stage in STAGES if stage in finished or newest_checkpoint(run, stage)]


def check_lineage(config: RunConfig, run: Path) -> None:
    """Raise UserError unless the stages go on from those that the folder holds, or are its first.

    Each stage starts from the one before it, and one that was stopped goes on from its own
    checkpoint, which began from the last one that had ended."""
    ended = [stage for stage in finished_stages(run) if stage != "base"]
    newest = {stage: newest_checkpoint(run, stage) for stage in STAGES if stage != "base"}
    stopped = {stage: path for stage, path in newest.items() if path and stage not in ended}
    # several only where an earlier one is trained again for a damaged one: in the order asked for
    later = sorted(stopped, key=[*config.trained, *stopped].index)
    held = [*ended, *later]
    if all(one == other for one, other in zip(held, config.trained, strict=False)):
        return
    begun = f"begun from {ended[-1] if ended else f'model={config.model}'}"
    told = [*ended, *(f"{stage} ({begun}, stopped at {stopped[stage].name})" for stage in later)]
    how = "goes on there" if stopped else "is not run again"
    raise UserError(
        f"out={run}: holds {' and then '.join(told)}, which stages=[{','.join(config.stages)}] "
        f"does not go on from; begin with stages=[{','.join(held)}], which {how}, "
        "or choose another out"
    )
