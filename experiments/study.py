"""Cold starts of all kinds with eight seeds, before and after RL: docs/results.md.

Usage: python -m experiments.study FOLDER run [PART...]   missing runs, two at a time
       python -m experiments.study FOLDER table           write the results

Runs of a seed share base model, example order, puzzles and rollout seeds. Interrupted studies
resume."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml

from benchmarks.machine import save
from weft_rl.data.toy import cold_start_traces
from weft_rl.evaluation.paired_runs import ArmRun, compare_runs
from weft_rl.rewards.sudoku import answer_digits
from weft_rl.rewards.sudoku_grid import CELLS
from weft_rl.runs.folder import CONFIG, EVAL, newest_checkpoint, read_json
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import crossed_mean, holm
from weft_rl.sweeps.jobs import LOGS, Job, Pool, run_in

ARMS = ("sft", "weft", "weft_exact", "weft_entropy", "nll", "weft_sw", "dream")
NO_COLD_START = "base"
SEEDS = range(8)
BASE_SEEDS = (1, 2)
PARTS = ("main", "regimes", "bases", "estimates")
# Entropies of every step, or cached for the preset's five epochs
ESTIMATES = {
    "fresh": ("cold_start.entropy_pass.rates=fresh",),
    "kept": ("cold_start.entropy_pass.rates=cached", "cold_start.entropy_pass.refresh_every=5"),
}
# RL losses: sequence ratio, and d1's as in the preset
POLICIES: dict[str, list[str]] = {"gspo": ["rl.loss_type=gspo"], "d1": []}
COMMON = ["preset=tiny", "rl.save_steps=200", "cold_start.save_steps=1000"]
# A third of the preset's steps with half of its prompts: about 35 s per run instead of 150 s
SHORT = ["rl.max_steps=64", "rl.num_prompts=16"]


@dataclass(frozen=True)
class Regime:
    """Variation of the tiny preset: options and examples of the cold start."""

    words: tuple[str, ...] = ()
    boilerplate: int = 0  # symbols of fixed text before the reasoning
    repeats: int = 1  # repetitions of the reasoning

    @property
    def own_records(self) -> bool:
        """Whether the records differ from the preset's."""
        return self.boilerplate > 0 or self.repeats > 1


# longer completions: 32 tokens are too few to reach the answer
_LONG = ("sampler.gen_length=64", "sampler.block_length=64", "sampler.steps=32")
REGIMES = {
    "boilerplate, 24 symbols": Regime(_LONG, boilerplate=24),
    "reasoning repeated three times": Regime(("cold_start.data.max_length=256", *_LONG), repeats=3),
    "100 records, 50 epochs": Regime(("cold_start.records=100", "cold_start.epochs=50")),
    "100 records, 5 epochs": Regime(("cold_start.records=100",)),
    "one epoch": Regime(("cold_start.epochs=1",)),
    "LoRA, rank 8": Regime(("cold_start.lora.r=8", "cold_start.learning_rate=2e-3")),
    "weak base, 200 steps": Regime(("base.max_steps=200",)),
    "strong base, 1,500 steps": Regime(("base.max_steps=1500",)),
    "loss_norm=masked": Regime(("cold_start.loss_norm=masked",)),
    "loss_norm=none": Regime(("cold_start.loss_norm=none",)),
    "exact_elbo=true": Regime(("cold_start.exact_elbo=true",)),
}
BOILERPLATE = " 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4"


def records(folder: Path, regime: Regime) -> Path:
    """Traces of the regime in s1K's schema, written once."""
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
    """Yield the cold-start runs of a part."""
    if part == "main":
        for seed in SEEDS:
            for arm in (NO_COLD_START, *ARMS):
                yield _cold(arm, f"{arm}-{seed}", seed, [])
    if part == "bases":
        for base in BASE_SEEDS:
            for seed in SEEDS:
                for arm in ("sft", "weft"):
                    yield _cold(arm, f"base{base}-{arm}-{seed}", seed, [f"base.seed={base}"])
    if part == "estimates":
        for seed in SEEDS:
            for name, words in ESTIMATES.items():
                yield _cold("weft", f"{name}-weft-{seed}", seed, [*words])
    if part == "regimes":
        for number, regime in enumerate(REGIMES.values()):
            words = list(regime.words)
            if regime.own_records:
                words.append(f"data={records(folder, regime)}")
                words.append("cold_start.data.bad_records=skip")  # a few traces occur twice
            for seed in SEEDS:
                for arm in ("sft", "weft"):
                    yield _cold(arm, f"regime{number}-{arm}-{seed}", seed, words)


def _cold(arm: str, name: str, seed: int, words: list[str]) -> Job:
    return Job(name, [*COMMON, *words, f"stages=[{arm}]", f"seed={seed}"])


def policies(part: str, folder: Path) -> Iterator[Job]:
    """Yield RL runs after the cold starts of the main part and of further bases."""
    if part == "main":
        for policy in POLICIES:
            for seed in SEEDS:
                for arm in (NO_COLD_START, *ARMS):
                    yield from _policy(folder, f"{arm}-{seed}", arm, policy, seed)
    if part == "bases":
        for base in BASE_SEEDS:
            for seed in SEEDS:
                for arm in ("sft", "weft"):
                    yield from _policy(folder, f"base{base}-{arm}-{seed}", arm, "gspo", seed)
    if part == "estimates":
        for seed in SEEDS:
            for name in ESTIMATES:
                yield from _policy(folder, f"{name}-weft-{seed}", "weft", "gspo", seed)


def _policy(folder: Path, cold: str, arm: str, policy: str, seed: int) -> Iterator[Job]:
    start = newest_checkpoint(folder / cold, arm)
    if start:
        given = [
            *COMMON,
            *POLICIES[policy],
            *SHORT,
            f"model={start}",
            f"seed={seed}",
            "stages=[rl]",
        ]
        yield Job(f"{cold}-{policy}", given)


def missing(folder: Path, jobs: Iterator[Job]) -> list[Job]:
    """Jobs without an evaluation."""
    return [job for job in jobs if not read_json(folder / job.name / EVAL, {})]


def run(folder: Path, parts: list[str]) -> None:
    """Run the missing jobs of the parts."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    workers = os.cpu_count() or 1
    for part in parts:
        # one job per base first: two simultaneous ones would both train it
        jobs = missing(folder, cold_starts(part, folder))
        firsts = {tuple(w for w in job.arguments if w.startswith("base.")): job for job in jobs}
        run_in(Pool(1, 1), list(firsts.values()), folder, len(jobs))
        for some in (cold_starts(part, folder), policies(part, folder)):
            jobs = missing(folder, some)
            run_in(Pool(workers, 1), jobs, folder, len(jobs))


def scores(folder: Path, stage: str) -> dict[str, dict[str, float]]:
    """Held-out scores of a run by record; empty if not evaluated."""
    if not read_json(folder / EVAL, {}):
        return {}
    rows = read_lines(folder / "completions" / f"eval-{stage}.jsonl")
    return {str(row["id"]): row["scores"] for row in rows}


def unit(folder: Path, arm: str, seed: int, cold: str, policy: str = "") -> ArmRun:
    """A cold start, and the RL run after it if policy is given, as one run of a comparison."""
    found = {"cold_start": scores(folder / cold, arm)}
    if policy:
        found["rl"] = scores(folder / f"{cold}-{policy}", "rl")
    return ArmRun(arm, seed, {stage: rows for stage, rows in found.items() if rows}, {})


def compared(units: list[ArmRun], arms: tuple[str, ...], stage: str) -> list[dict[str, Any]]:
    """Row per arm with runs: scores at the stage, and difference from the first arm."""
    result = compare_runs(units, arms, [*SEEDS], "sudoku")
    differences = {d["arm"]: d for d in result["differences"] if d["stage"] == stage}
    return [
        {"arm": arm, "difference": differences.get(arm)} | result["results"][arm][stage]
        for arm in arms
        if stage in result["results"][arm]
    ]


def forms(folder: Path, pattern: str, pair: tuple[str, str]) -> dict[str, Any]:
    """Percent of 16-digit answers of a cold start, and their correctness."""
    found, every = {}, []
    for arm in pair:
        written, right = [], []
        for seed in SEEDS:
            run = folder / pattern.format(arm, seed)
            rows = list(read_lines(run / "completions" / f"eval-{arm}.jsonl"))
            whole = [len(answer_digits(row["completion"]) or "") == CELLS for row in rows]
            cells = [100 * row["scores"]["cell_accuracy"] for row in rows]
            written.append([100.0 * is_whole for is_whole in whole])
            right += [cell for cell, is_whole in zip(cells, whole, strict=True) if is_whole]
        every.append(np.array(written))
        found[arm] = {"written": float(every[-1].mean()), "cells_of_these": fmean(right)}
    return found | {"difference": asdict(crossed_mean(every[1] - every[0]))}


def kept_estimates(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """WeFT with entropies of every step or of the base model, by stage."""
    units = [
        replace(unit(folder, "weft", seed, f"{name}-weft-{seed}", "gspo"), arm=name)
        for name in ESTIMATES
        for seed in SEEDS
    ]
    if not all(u.scores for u in units):
        return {}
    return {stage: compared(units, tuple(ESTIMATES), stage) for stage in ("cold_start", "rl")}


def summary(folder: Path) -> dict[str, Any]:
    """Comparisons of all finished runs."""
    arms = (*ARMS, NO_COLD_START)
    revision = yaml.safe_load((folder / "sft-0" / CONFIG).read_text())["revision"]
    found: dict[str, Any] = {
        "revision": revision,
        "stages": {},
        "bases": {},
        "regimes": {},
        "forms": {},
    }
    for policy in POLICIES:
        units = [unit(folder, arm, s, f"{arm}-{s}", policy) for arm in arms for s in SEEDS]
        found["stages"]["cold start"] = compared(units, arms, "cold_start")
        found["stages"][policy] = compared(units, arms, "rl")
    pair = ("sft", "weft")
    parts = {f"base {base}": f"base{base}-{{}}-{{}}" for base in BASE_SEEDS}
    for name, pattern in parts.items():
        units = [unit(folder, a, s, pattern.format(a, s), "gspo") for a in pair for s in SEEDS]
        if all(any(u.scores for u in units if u.arm == arm) for arm in pair):
            found["bases"][name] = {
                stage: compared(units, pair, stage) for stage in ("cold_start", "rl")
            }
    for number, name in enumerate(REGIMES):
        units = [unit(folder, a, s, f"regime{number}-{a}-{s}") for a in pair for s in SEEDS]
        if all(any(u.scores for u in units if u.arm == arm) for arm in pair):
            found["regimes"][name] = compared(units, pair, "cold_start")
            found["forms"][name] = forms(folder, f"regime{number}-{{}}-{{}}", pair)
    found["estimates"] = kept_estimates(folder)
    rows = [row for rows in found["regimes"].values() for row in rows if row["difference"]]
    for row, p in zip(rows, holm([row["difference"]["p"] for row in rows]), strict=True):
        row["difference"] |= {"p_holm": round(p, 5)}
        if p >= 0.05:
            row["difference"]["verdict"] = "not distinguishable"
    return found


def table(folder: Path) -> None:
    """Write benchmarks/results/study.json and .md, and print the tables."""
    save("study", summary(folder))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: python -m experiments.study FOLDER run [{'|'.join(PARTS)}] ... | table")
    place, what, *rest = sys.argv[1:]
    if what == "run":
        run(Path(place), rest or [*PARTS])
    else:
        table(Path(place))
