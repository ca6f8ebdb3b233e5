"""Paired analysis of held-out scores: in [0, 1] internally, percent in the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from weft_rl.config.overrides import changes_weights
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.runs.folder import EVAL, read_config, read_results
from weft_rl.runs.jsonl import read_lines
from weft_rl.runs.renamed import flattened
from weft_rl.stats import (
    Interval,
    crossed_estimate,
    crossed_mean,
    holm,
    prob_superiority,
    record_mean,
    verdict,
)

RESULT = "comparison.json"
# Stages of a run by role: the name of the cold start depends on the arm.
STAGES = ("base", "cold_start", "rl")
# Keys of config.yaml that may differ between the runs of a comparison.
_PER_RUN = {"stages", "seed", "out", "resume", "trackers", "versions", "revision"}
_MISSING = object()  # a missing option; null is a value

Table = Mapping[int, Mapping[str, float]]  # seed -> record id -> score
Tables = Mapping[str, Table]  # score name -> table; the main score is first


@dataclass(frozen=True)
class ArmRun:
    """Held-out scores of one run, for the stages evaluated so far."""

    arm: str
    seed: int
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]  # stage -> record id -> name -> share
    baselines: Mapping[str, Any]  # as in eval.json


def run_name(arm: str, seed: int) -> str:
    """Return the name of a run, which is also its directory name."""
    return f"{arm}-seed{seed}"


def read_arm_run(folder: Path, arm: str, seed: int, task: str) -> ArmRun:
    """Read the scores of evaluated stages. Raises UserError if completions and eval.json differ."""
    evaluated = read_results(folder)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    baselines: dict[str, Any] = {}
    for part, stage in zip(STAGES, ("base", arm, "rl"), strict=True):
        path = folder / "completions" / f"eval-{stage}.jsonl"
        with parsing(folder / EVAL):
            if task not in evaluated.get(stage, {}):
                continue
            entry = evaluated[stage][task]
            baselines, count = dict(entry.get("baselines", {})), entry["n"]
        with parsing(path):
            rows = [row for row in read_lines(path) if row.get("task") == task]
            if not all(
                row["scores"] and all(map(is_number, row["scores"].values())) for row in rows
            ):
                raise TypeError("a score is not a number")
            scores[part] = {str(row["id"]): dict(row["scores"]) for row in rows}
        if not len(scores[part]) == len(rows) == count:
            raise UserError(
                f"{path}: holds {len(scores[part])} records, {EVAL} {count}; "
                f"remove {folder} and repeat the command"
            )
    return ArmRun(arm, seed, scores, baselines)


def require_same_options(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise UserError if two runs differ in an option that changes weights.

    Runs of different code revisions are compared on the options that both have."""
    runs: dict[str, dict[str, Any]] = {}
    first_of_revision: dict[Any, str] = {}
    for name in (run_name(arm, seed) for arm in arms for seed in seeds):
        config = read_config(folder / name)
        keys = config.keys() - _PER_RUN
        if not keys and (folder / name / EVAL).exists():
            raise UserError(
                f"{folder / name}: has scores but no config.yaml; remove it and repeat the "
                "comparison"
            )
        if not keys:
            continue
        flat = dict(flattened({key: config[key] for key in sorted(keys)}))
        run = runs[name] = {key: value for key, value in flat.items() if changes_weights(key)}
        same_revision = first_of_revision.setdefault(config.get("revision"), name)
        first = next(iter(runs))
        for other, shared in (
            (same_revision, runs[same_revision].keys() | run.keys()),
            (first, runs[first].keys() & run.keys()),
        ):
            differing = [
                key
                for key in sorted(shared)
                if run.get(key, _MISSING) != runs[other].get(key, _MISSING)
            ]
            if differing:
                raise UserError(
                    f"{folder / name}: cannot be compared with {other} (different: "
                    f"{', '.join(differing)}); remove it and repeat the comparison"
                )


def compare_runs(
    runs: Sequence[ArmRun], arms: Sequence[str], seeds: Sequence[int], task: str
) -> dict[str, Any]:
    """Return the content of comparison.json. Differences use the seeds that both sides have.

    The first arm is the reference for all others. Verdicts are Holm-corrected for the number of
    arms. Raises UserError if runs have different records, ValueError if no run is evaluated."""
    names, num_records = _common_records(runs)
    evaluated = {(run.arm, run.seed) for run in runs if "rl" in run.scores}
    tables = {
        (arm, stage): {
            name: {
                run.seed: {record: row[name] for record, row in run.scores[stage].items()}
                for run in runs
                if run.arm == arm and stage in run.scores
            }
            for name in names
        }
        for arm in arms
        for stage in STAGES
    }
    return {
        "arms": [*arms],
        "seeds": [*seeds],
        "task": task,
        "n": num_records,
        "metric": names[0],
        "others": names[1:],
        "missing": [run_name(a, s) for a in arms for s in seeds if (a, s) not in evaluated],
        "results": {
            arm: {
                stage: _scores(tables[arm, stage])
                for stage in STAGES
                if tables[arm, stage][names[0]]
            }
            for arm in arms
        },
        "differences": [
            difference
            for stage in ("rl", "cold_start")
            for difference in _against_first({arm: tables[arm, stage] for arm in arms}, stage)
        ],
        "gains": [
            {"arm": arm, "stage": stage, "before": before} | change
            for arm in arms
            for before, stage in pairwise(STAGES)
            if (change := _change(tables[arm, stage], tables[arm, before]))
        ],
        "baselines": next((run.baselines for run in runs if run.baselines), {}),
    }


def _common_records(runs: Sequence[ArmRun]) -> tuple[list[str], int]:
    """Return the score names and the number of records; both are equal for all evaluations."""
    evaluations = [(run, *item) for run in runs for item in run.scores.items()]
    if not evaluations:
        raise ValueError("runs: none has been evaluated")
    first, _, expected = evaluations[0]
    for run, stage, scores in evaluations:
        if scores.keys() != expected.keys():
            raise UserError(
                f"{run_name(run.arm, run.seed)}: its stage {stage} was evaluated on other records "
                f"than {run_name(first.arm, first.seed)}; remove its folder and repeat the command"
            )
    return [*next(iter(expected.values()))], len(expected)


def _percent(value: float) -> float:
    return round(100 * value, 2) + 0.0  # avoids -0.0


def _bounds(interval: Interval) -> list[float]:
    return [_percent(interval.low), _percent(interval.high)]


def _scores(tables: Tables) -> dict[str, Any]:
    """Return percent with intervals and by seed; the main score is at the top level."""
    entries = {}
    for name, table in tables.items():
        ids = [*next(iter(table.values()))]
        rows = [[row[record] for record in ids] for row in table.values()]
        # the base model does not depend on the seed: equal rows count as one measurement
        same = all(row == rows[0] for row in rows)
        interval = (record_mean(rows[0]) if same else crossed_mean(rows)).within(0.0, 1.0)
        entries[name] = {
            "score": _percent(interval.mean),
            "ci95": _bounds(interval),
            "by_seed": {
                str(seed): _percent(sum(row.values()) / len(row)) for seed, row in table.items()
            },
        }
    return entries.pop(next(iter(tables))) | entries


def _against_first(tables: Mapping[str, Tables], stage: str) -> list[dict[str, Any]]:
    """Compare each arm with the first one, Holm-corrected for their number."""
    reference, *others = tables
    differences: list[dict[str, Any]] = [
        {"stage": stage, "arm": arm, "reference": reference} | change
        for arm in others
        if (change := _change(tables[arm], tables[reference], len(others)))
    ]
    for name in tables[reference]:
        entries = [difference.get(name, difference) for difference in differences]
        for entry, p in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
            entry["p_holm"] = round(p, 5)
            if len(others) > 1 and p >= 0.05:
                entry["verdict"] = "not distinguishable"
    return differences


def _change(after: Tables, before: Tables, comparisons: int = 1) -> dict[str, Any]:
    """Return the change in points over the seeds of both; empty without common seeds."""
    main = next(iter(after))
    seeds = [seed for seed in after[main] if seed in before[main]]
    if not seeds:
        return {}
    entries = {}
    for name, table in after.items():
        ids = [*table[seeds[0]]]
        rows = [[table[seed][i] - before[name][seed][i] for i in ids] for seed in seeds]
        entries[name] = _difference(rows, comparisons)
    return {"seeds": seeds} | entries.pop(main) | entries


def _difference(rows: Sequence[Sequence[float]], comparisons: int) -> dict[str, Any]:
    """Summarize paired differences (seeds by records) as one of several comparisons."""
    estimate = crossed_estimate(rows)
    interval = estimate.interval.within(-1.0, 1.0)
    entry = {
        "difference": _percent(interval.mean),
        "ci95": _bounds(interval),
        "verdict": verdict(interval),
        "p": round(estimate.p, 5),
    }
    if len(rows) > 1:  # a single seed has no variance over seeds
        entry["superiority"] = round(prob_superiority([fmean(row) for row in rows]), 4)
        if (effect := estimate.minimum_detectable_effect(comparisons)) > 1e-9:
            entry["smallest_visible"] = _percent(effect)
    return entry
