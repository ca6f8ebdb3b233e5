"""Paired analysis of held-out scores: in [0, 1] internally, percent in the result."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft_rl.config.overrides import changes_weights
from weft_rl.errors import UserError
from weft_rl.evaluation.scores import percent, percent_bounds
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.runs.folder import EVAL, read_config, read_results
from weft_rl.runs.jsonl import read_lines
from weft_rl.runs.renamed import flattened
from weft_rl.stats import (
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

Table = Mapping[int, NDArray[np.float64]]  # seed -> scores (names, records); the main name is first


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
    initial = "a2d" if "a2d" in evaluated else "base"
    for part, stage in zip(STAGES, (initial, arm, "rl"), strict=True):
        if task not in evaluated.get(stage, {}):
            continue
        path = folder / "completions" / f"eval-{stage}.jsonl"
        with parsing(folder / EVAL):
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
    earlier: dict[str, tuple[Any, dict[str, Any]]] = {}  # run name -> revision, options
    for name in (run_name(arm, seed) for arm in arms for seed in seeds):
        config = read_config(folder / name)
        per_run = {key: config.pop(key, None) for key in _PER_RUN}
        if not config and (folder / name / EVAL).exists():
            raise UserError(
                f"{folder / name}: has scores but no config.yaml; remove it and repeat the "
                "comparison"
            )
        if not config:
            continue
        options = {key: value for key, value in flattened(config) if changes_weights(key)}
        for other, (revision, known) in earlier.items():
            same_code = revision == per_run["revision"]
            keys = known.keys() | options.keys() if same_code else known.keys() & options.keys()
            differing = [
                key
                for key in sorted(keys)
                if known.get(key, _MISSING) != options.get(key, _MISSING)
            ]
            if differing:
                raise UserError(
                    f"{folder / name}: cannot be compared with {other} (different: "
                    f"{', '.join(differing)}); remove it and repeat the comparison"
                )
        earlier[name] = per_run["revision"], options


def compare_runs(
    runs: Sequence[ArmRun], arms: Sequence[str], seeds: Sequence[int], task: str
) -> dict[str, Any]:
    """Return the content of comparison.json. Differences use the seeds that both sides have.

    The first arm is the reference for all others. Verdicts are Holm-corrected for the number of
    arms. Raises UserError if runs have different records, ValueError if no run is evaluated."""
    names, records = _common_records(runs)
    tables: dict[tuple[str, str], dict[int, NDArray[np.float64]]] = defaultdict(dict)
    for run in runs:
        for stage, scores in run.scores.items():
            rows = [[scores[record][name] for record in records] for name in names]
            tables[run.arm, stage][run.seed] = np.array(rows)
    return {
        "arms": [*arms],
        "seeds": [*seeds],
        "task": task,
        "n": len(records),
        "metric": names[0],
        "others": names[1:],
        "missing": [run_name(a, s) for a in arms for s in seeds if s not in tables[a, "rl"]],
        "results": {
            arm: {
                stage: _scores(tables[arm, stage], names) for stage in STAGES if tables[arm, stage]
            }
            for arm in arms
        },
        "differences": [
            difference
            for stage in ("rl", "cold_start")
            for difference in _against_first(
                {arm: tables[arm, stage] for arm in arms}, names, stage
            )
        ],
        "gains": [
            {"arm": arm, "stage": stage, "before": before} | change
            for arm in arms
            for before, stage in pairwise(STAGES)
            if (change := _change(tables[arm, stage], tables[arm, before], names))
        ],
        "baselines": next((run.baselines for run in runs if run.baselines), {}),
    }


def _common_records(runs: Sequence[ArmRun]) -> tuple[list[str], list[str]]:
    """Return the names of the scores and the ids of the records, equal for all evaluations."""
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
    return [*next(iter(expected.values()))], [*expected]


def _scores(table: Table, names: Sequence[str]) -> dict[str, Any]:
    """Return percent with intervals and by seed; the main score is at the top level."""
    entries = {}
    for k, name in enumerate(names):
        rows = [scores[k].tolist() for scores in table.values()]
        # the base model does not depend on the seed: equal rows count as one measurement
        same = all(row == rows[0] for row in rows)
        interval = (record_mean(rows[0]) if same else crossed_mean(rows)).within(0.0, 1.0)
        means = [percent(sum(row) / len(row)) for row in rows]
        entries[name] = {
            "score": percent(interval.mean),
            "ci95": percent_bounds(interval),
            "by_seed": dict(zip(map(str, table), means, strict=True)),
        }
    return entries.pop(names[0]) | entries


def _against_first(
    tables: Mapping[str, Table], names: Sequence[str], stage: str
) -> list[dict[str, Any]]:
    """Compare each arm with the first one, Holm-corrected for their number."""
    reference, *others = tables
    differences: list[dict[str, Any]] = [
        {"stage": stage, "arm": arm, "reference": reference} | change
        for arm in others
        if (change := _change(tables[arm], tables[reference], names, len(others)))
    ]
    for name in names:
        entries = [difference.get(name, difference) for difference in differences]
        for entry, p in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
            entry["p_holm"] = round(p, 5)
            if len(others) > 1 and p >= 0.05:
                entry["verdict"] = "not distinguishable"
    return differences


def _change(
    after: Table, before: Table, names: Sequence[str], comparisons: int = 1
) -> dict[str, Any]:
    """Return the change in points over the seeds of both; empty without common seeds."""
    seeds = [seed for seed in after if seed in before]
    if not seeds:
        return {}
    changes = np.stack([after[seed] - before[seed] for seed in seeds], axis=1)
    entries = {
        name: _difference(rows, comparisons) for name, rows in zip(names, changes, strict=True)
    }
    return {"seeds": seeds} | entries.pop(names[0]) | entries


def _difference(rows: NDArray[np.float64], comparisons: int) -> dict[str, Any]:
    """Summarize paired differences (seeds, records) as one of several comparisons."""
    estimate = crossed_estimate(rows)
    interval = estimate.interval.within(-1.0, 1.0)
    entry = {
        "difference": percent(interval.mean),
        "ci95": percent_bounds(interval),
        "verdict": verdict(interval),
        "p": round(estimate.p, 5),
    }
    if len(rows) > 1:  # a single seed has no variance over seeds
        entry["superiority"] = round(prob_superiority([fmean(row) for row in rows]), 4)
        if (effect := estimate.minimum_detectable_effect(comparisons)) > 1e-9:
            entry["smallest_visible"] = percent(effect)
    return entry
