"""Does the kind of cold start matter, before RL and after it? The study behind docs/study.md.

Usage: python benchmarks/study.py FOLDER run [main|bases|regimes]   what is missing, two at a time
       python benchmarks/study.py FOLDER table                      docs/study.md of what is there

Every run is kept in FOLDER. A seed's runs share base, order of records, puzzles and rollout seeds,
so that arms are compared within a seed. Start it again after an interruption."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weft_rl.data.tiny_world import cold_start_traces
from weft_rl.jobs import LOGS, Job, run_jobs
from weft_rl.runs import EVAL, newest_checkpoint, read_json

ARMS = ("sft", "weft", "weft_exact", "weft_entropy", "nll", "weft_sw", "dream")
NO_COLD_START = "base"
SEEDS = range(8)
BASE_SEEDS = (1, 2)
# What RL follows: d1's objective and masks at the tiny scale, and the objective that scored most
# in benchmarks/results/objectives.md.
POLICIES = {"gspo": ["rl.objective=gspo"], "d1": ["rl.preset=d1_tiny"]}
COMMON = ["preset=tiny", "rl.save_steps=200", "cold_start.save_steps=1000"]
# A third of the preset's steps, each of half its prompts: some 35 s instead of 150 s a run.
SHORT = ["rl.max_steps=64", "rl.num_prompts=16"]


@dataclass(frozen=True)
class Regime:
    """What is varied around the tiny preset: options of the cold start, and its records."""

    words: tuple[str, ...] = ()
    boilerplate: int = 0  # symbols of fixed text before each trace's own reasoning
    repeats: int = 1  # how often a trace says its reasoning

    @property
    def own_records(self) -> bool:
        """Whether the records are not those of the preset."""
        return self.boilerplate > 0 or self.repeats > 1


REGIMES = {
    "boilerplate, 24 symbols": Regime(boilerplate=24),
    "reasoning said three times": Regime(("cold_start.data.max_length=256",), repeats=3),
    "100 records, 50 epochs": Regime(("cold_start.records=100", "cold_start.epochs=50")),
    "100 records, 5 epochs": Regime(("cold_start.records=100",)),
    "one epoch": Regime(("cold_start.epochs=1",)),
    "LoRA, rank 8": Regime(("cold_start.lora.r=8", "cold_start.learning_rate=2e-3")),
    "weak base, 200 steps": Regime(("base.max_steps=200",)),
    "strong base, 1,500 steps": Regime(("base.max_steps=1500",)),
    "normalizer=masked": Regime(("cold_start.normalizer=masked",)),
    "normalizer=none": Regime(("cold_start.normalizer=none",)),
    "slope": Regime(("cold_start.slope=true",)),
}
BOILERPLATE = " 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4"


def records(folder: Path, regime: Regime) -> Path:
    """The regime's traces in s1K's schema, written once."""
    path = folder / f"traces-{regime.boilerplate}-{regime.repeats}.jsonl"
    if not path.exists():
        text = BOILERPLATE[: regime.boilerplate]
        rows = [
            {
                "question": trace.question,
                "thinking_trajectories": [text + trace.reasoning * regime.repeats],
                "attempt": trace.answer,
                "solution": trace.answer,
            }
            for trace in cold_start_traces(1000, 0)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def cold_starts(part: str, folder: Path) -> Iterator[Job]:
    """The runs that end with a cold start."""
    if part == "main":
        for seed in SEEDS:
            for arm in (NO_COLD_START, *ARMS):
                yield _cold(arm, f"{arm}-{seed}", seed, [])
    if part == "bases":
        for base in BASE_SEEDS:
            for seed in SEEDS:
                for arm in ("sft", "weft"):
                    yield _cold(arm, f"base{base}-{arm}-{seed}", seed, [f"base.seed={base}"])
    if part == "regimes":
        for number, regime in enumerate(REGIMES.values()):
            words = list(regime.words)
            if regime.own_records:
                words.append(f"data={records(folder, regime)}")
            for seed in SEEDS:
                for arm in ("sft", "weft"):
                    yield _cold(arm, f"regime{number}-{arm}-{seed}", seed, words)


def _cold(arm: str, name: str, seed: int, words: list[str]) -> Job:
    return Job(name, [*COMMON, *words, f"stages=[{arm}]", f"seed={seed}"])


def policies(folder: Path) -> Iterator[Job]:
    """RL after each cold start of the main part and of further bases."""
    for policy, words in POLICIES.items():
        for seed in SEEDS:
            for arm in (NO_COLD_START, *ARMS):
                yield from _policy(folder, f"{arm}-{seed}", arm, policy, words, seed)
    for base in BASE_SEEDS:
        for seed in SEEDS:
            for arm in ("sft", "weft"):
                name = f"base{base}-{arm}-{seed}"
                yield from _policy(folder, name, arm, "gspo", POLICIES["gspo"], seed)


def _policy(
    folder: Path, cold: str, arm: str, policy: str, words: list[str], seed: int
) -> Iterator[Job]:
    start = newest_checkpoint(folder / cold, arm)
    if start:
        given = [*COMMON, *words, *SHORT, f"model={start}", f"seed={seed}", "stages=[rl]"]
        yield Job(f"{cold}-{policy}", given)


def missing(folder: Path, jobs: Iterator[Job]) -> list[Job]:
    """Those that have not been evaluated."""
    return [job for job in jobs if not read_json(folder / job.name / EVAL, {})]


def run(folder: Path, parts: list[str]) -> None:
    """Run what is missing of the parts."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    workers = os.cpu_count() or 1
    for part in parts:
        # one of each base first: two that start together would each train it
        jobs = missing(folder, cold_starts(part, folder))
        firsts = {tuple(w for w in job.arguments if w.startswith("base.")): job for job in jobs}
        run_jobs(list(firsts.values()), folder, 1, 1, len(jobs))
        for some in (missing(folder, cold_starts(part, folder)), None):
            jobs = missing(folder, policies(folder)) if some is None else some
            run_jobs(jobs, folder, workers, 1, len(jobs))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/study.py FOLDER run [main|bases|regimes] | table")
    place, what, *rest = sys.argv[1:]
    if what == "run":
        run(Path(place), rest or ["main", "regimes", "bases"])
