"""A command killed at a random moment, repeated until it is through, and compared with one that
nobody killed."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from folders import contents, differences
from lives import Command, Moment, live

# As small as a run of every stage can be that still has a checkpoint before its last one.
_SMALL = (
    *("device=cpu", "base.max_steps=4", "base.batch_size=8", "base.examples=40"),
    *("base.logging_steps=2", "cold_start.records=12", "cold_start.epochs=2"),
    *("cold_start.batch_size=4", "cold_start.logging_steps=1", "cold_start.save_steps=2"),
    *("rl.num_prompts=2", "rl.num_generations=2", "rl.num_iterations=3", "rl.max_steps=6"),
    *("rl.save_steps=2", "rl.kl_coef=0.01", "eval.num_records=6", "eval.batch_size=1"),
)
_CACHED_RATES = ("cold_start.entropy_pass.rates=cached", "cold_start.entropy_pass.refresh_every=2")


class Scenario(NamedTuple):
    """A command whose stages are interrupted; words beside those of every run."""

    words: tuple[str, ...]
    module: str = "weft_rl.pipeline"
    own_base: bool = False  # pretrained anew in every life, not taken from the cache


SCENARIOS = {
    "base": Scenario(("stages=[base]", "eval.after_each=false"), own_base=True),
    "sft": Scenario(("stages=[sft]", "eval.after_each=false")),
    "weft": Scenario(("stages=[weft]", "eval.after_each=false", *_CACHED_RATES)),
    "rl": Scenario(("stages=[rl]", "eval.after_each=false")),
    "eval": Scenario(("stages=[eval]",)),
    "pipeline": Scenario(("stages=[weft,rl]",)),
    "weft, rl": Scenario(("stages=[weft,rl]", "eval.after_each=false", *_CACHED_RATES)),
    "compare": Scenario(("arms=[sft,weft]", "seeds=[0]", "workers=2"), "weft_rl.compare"),
    # its only run has all cores, and with them another base than the one in the cache
    "reproduce": Scenario(("figure=2", "seeds=[0]"), "weft_rl.reproduce", own_base=True),
}


class Whole(NamedTuple):
    """A run that nobody killed: its files, seconds, and how often it worked on files."""

    files: dict[str, bytes]
    seconds: float
    file_events: int


class Killed(NamedTuple):
    """What became of a run that was killed: how often, when, and how its files differ."""

    kills: int
    moments: list[str]
    wrong: list[str]


def whole(name: str, root: Path) -> Whole:
    root.mkdir(parents=True, exist_ok=True)
    if not SCENARIOS[name].own_base:
        live(command("base", root), root / "log")
        (root / "own-cache").rename(root / "cache")
        shutil.rmtree(root / "run")
    life = live(command(name, root), root / "log")
    if life.status != 0 or life.file_events is None:
        raise RuntimeError(f"{name}: status {life.status} without a kill: {life.output[-2000:]}")
    made = Whole(contents(root / "run"), life.seconds, life.file_events)
    shutil.rmtree(root / "run")
    return made


def kill_and_go_on(
    name: str, seed: int, unharmed: Whole, root: Path, prepare: Callable[[], None] | None = None
) -> Killed:
    """Kill the scenario at the one to three moments that `seed` draws, then let it end."""
    again = command(name, root)._replace(prepare=prepare)
    rng = random.Random(f"{name} {seed}")
    moments = [_moment(rng, unharmed) for _ in range(rng.randint(1, 3))]
    shutil.rmtree(root / "own-cache", ignore_errors=True)
    kills, wrong = 0, []
    for moment in (*moments, None):
        life = live(again, root / "log", moment)
        kills += life.status == -9
        if life.status not in ((0,) if moment is None else (0, -9)):
            wrong.append(f"status {life.status}, moment {moment}: {life.output[-2000:]}")
    wrong += differences(root / "run", unharmed.files)
    shutil.rmtree(root / "run")
    return Killed(kills, [str(moment) for moment in moments], wrong)


def command(name: str, root: Path) -> Command:
    scenario = SCENARIOS[name]
    cache = root / ("own-cache" if scenario.own_base else "cache")
    words = (*scenario.words, *_SMALL, f"out={root / 'run'}")
    return Command(scenario.module, words, root, {"WEFT_RL_CACHE": str(cache)})


def _moment(rng: random.Random, unharmed: Whole) -> Moment:
    """Half of the moments lie between two works on files, where little time is spent."""
    if rng.random() < 0.5:
        return Moment(file_event=rng.randint(1, unharmed.file_events))
    return Moment(seconds=rng.uniform(0, unharmed.seconds))
