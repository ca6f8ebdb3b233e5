"""Every file of a checkpoint broken, each in every way, before a run goes on from it."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from folders import differences
from harm import BREAKS
from kills import Whole, command
from lives import live

# The step of a scenario's last checkpoint; the one before it is kept too.
LAST = "step-6"


def stopped(name: str, root: Path) -> Path:
    """A run of the stage `name` that has its last checkpoint, but was stopped before it said so."""
    live(command(name, root), root / "log")
    (root / "run" / "stages.json").unlink()
    return (root / "run").rename(root / "stopped")


def cases(folder: Path, stage: str) -> Iterator[tuple[str, str]]:
    files = sorted(path.name for path in (folder / "checkpoints" / stage / LAST).iterdir())
    every = [(file, kind) for file in files for kind in BREAKS]
    random.Random(0).shuffle(every)
    yield from every


def break_and_go_on(
    stage: str, file: str, kind: str, folder: Path, unharmed: Whole, root: Path
) -> list[str]:
    """What is wrong with a run that goes on after a file was broken; empty: nothing was lost."""
    shutil.copytree(folder, root / "run")
    last = root / "run" / "checkpoints" / stage / LAST
    BREAKS[kind](last / file)
    life = live(command(stage, root), root / "log")
    wrong = [f"status {life.status}: {life.output[-2000:]}"] if life.status else []
    aside = last.with_name(f"{LAST}.damaged")
    if not aside.is_dir():
        wrong.append("the broken checkpoint was not set aside")
    shutil.rmtree(aside, ignore_errors=True)
    wrong += differences(root / "run", unharmed.files)
    shutil.rmtree(root / "run")
    return wrong
