"""What a comparison finds: the runs' held-out scores, paired over seeds and records.

Scores are shares in [0, 1] inside and percent or points in the results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from weft_rl.config.identity import changes_weights
from weft_rl.config.overrides import flattened
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.runs.folder import EVAL, read_config, read_results
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import (
    Interval,
    crossed_estimate,
    crossed_mean,
    hierarchical_bootstrap,
    holm,
    percentile_interval,
    prob_superiority,
    record_mean,
    verdict,
)

RESULT = "comparison.json"
# A run's stages by their part in a comparison: what the cold start is called differs by arm.
STAGES = ("base", "cold_start", "rl")
# Options that a run of a comparison has for itself.
_OWN = ("stages", "seed", "out", "resume", "trackers")
# Stands for an option that a run does not have, which is not one that is null.
_NONE = object()

Table = Mapping[int, Mapping[str, float]]  # seed -> record's id -> value
Tables = Mapping[str, Table]  # by score name, the task's main score first


@dataclass(frozen=True)
class ArmRun:
    """One run of a comparison: its held-out scores, as far as it has come."""

    arm: str
    seed: int
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]  # stage -> record's id -> name -> share
    baselines: Mapping[str, Any]  # as eval.json has them


def unit_name(arm: str, seed: int) -> str:
    """What a run of a comparison is called, its folder too."""
    return f"{arm}-seed{seed}"


def read_unit(folder: Path, arm: str, seed: int, task: str) -> ArmRun:
    """The scores in a run folder; stages that are not evaluated yet, or all, are left out.

    Raises UserError when a file of completions does not hold what eval.json speaks of."""
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
            scores[part] = {str(row["id"]): _shares(row["scores"]) for row in rows}
        if not len(scores[part]) == len(rows) == count:
            raise UserError(
                f"{path}: holds {len(scores[part])} records, {EVAL} speaks of {count}; "
                f"remove {folder} and repeat the command"
            )
    return ArmRun(arm, seed, scores, baselines)


def _shares(scores: Mapping[str, Any]) -> dict[str, float]:
    """A record's scores. Raises TypeError for a value that is no number."""
    if not scores or not all(map(is_number, scores.values())):
        raise TypeError("a score is no number")
    return dict(scores)


def check_alike(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise UserError naming the options in which the comparison's runs differ, but for what
    makes them its runs, where they ran and who was told."""
    options: dict[str, dict[str, Any]] = {}
    firsts: dict[Any, str] = {}  # of each revision
    for name in (unit_name(arm, seed) for arm in arms for seed in seeds):
        settings = read_config(folder / name)
        keys = settings.keys() - {*_OWN, "versions", "revision"}
        if not keys and (folder / name / EVAL).exists():
            raise UserError(
                f"{folder / name}: has scores and no config.yaml that says of what; remove it and "
                "repeat the comparison"
            )
        if not keys:
            continue
        options[name] = dict(flattened({key: settings[key] for key in sorted(keys)}))
        own = firsts.setdefault(settings.get("revision"), name)
        _require_alike(folder, name, own, options, options[own].keys() | options[name].keys())
        # an option that code of another revision does not know is no difference
        first = next(iter(options))
        _require_alike(folder, name, first, options, options[first].keys() & options[name].keys())


def _require_alike(
    folder: Path,
    name: str,
    other: str,
    options: Mapping[str, Mapping[str, Any]],
    keys: Iterable[str],
) -> None:
    found, expected = options[name], options[other]
    keys = [key for key in sorted(keys) if changes_weights(key)]
    differing = [key for key in keys if found.get(key, _NONE) != expected.get(key, _NONE)]
    if differing:
        raise UserError(
            f"{folder / name}: is no run to compare with {other} (different: "
            f"{', '.join(differing)}); remove it and repeat the comparison"
        )


def compare_units(
    units: Sequence[ArmRun], arms: Sequence[str], seeds: Sequence[int], task: str
) -> dict[str, Any]:
    """The content of comparison.json. Differences are taken over the seeds that both sides have.

    The first arm is the reference of every other one; where several are compared with it, a verdict
    stands only if it holds after Holm's correction for their number. Raises UserError when runs
    were evaluated on different records, ValueError when none was evaluated."""
    names, ids = _common_records(units)
    found = {(unit.arm, unit.seed) for unit in units if "rl" in unit.scores}
    tables = {
        (arm, stage): {name: _table(units, arm, stage, name) for name in names}
        for arm in arms
        for stage in STAGES
    }
    return {
        "arms": [*arms],
        "seeds": [*seeds],
        "task": task,
        "n": len(ids),
        "metric": names[0],
        "others": names[1:],
        "missing": [unit_name(a, s) for a in arms for s in seeds if (a, s) not in found],
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
            for difference in _against_first(tables, arms, stage)
        ],
        "gains": [
            {"arm": arm, "stage": stage, "before": before} | change
            for arm in arms
            for before, stage in pairwise(STAGES)
            if (change := _change(tables[arm, stage], tables[arm, before]))
        ],
        "baselines": next((unit.baselines for unit in units if unit.baselines), {}),
    }


def _common_records(units: Sequence[ArmRun]) -> tuple[list[str], set[str]]:
    """The score names and record ids that all evaluations share."""
    evaluations = [
        (unit_name(unit.arm, unit.seed), stage, scores)
        for unit in units
        for stage, scores in unit.scores.items()
    ]
    if not evaluations:
        raise ValueError("units: none has been evaluated")
    first, _, expected = evaluations[0]
    for name, stage, scores in evaluations:
        if scores.keys() != expected.keys():
            raise UserError(
                f"{name}: its stage {stage} was evaluated on other records than {first}; "
                "remove its folder and repeat the command"
            )
    return [*next(iter(expected.values()))], set(expected)


def _table(units: Sequence[ArmRun], arm: str, stage: str, name: str) -> Table:
    return {
        unit.seed: {record: scores[name] for record, scores in unit.scores[stage].items()}
        for unit in units
        if unit.arm == arm and stage in unit.scores
    }


def _interval(table: Table) -> Interval:
    """Mean share over seeds and records with its interval, within [0, 1]."""
    ids = [*next(iter(table.values()))]
    rows = [[row[record] for record in ids] for row in table.values()]
    # the base is the same model whatever the seed: equal rows are one measurement, not several
    same = all(row == rows[0] for row in rows)
    found = record_mean(rows[0]) if same else crossed_mean(rows)
    return found.within(0.0, 1.0)


def _percent(value: float) -> float:
    return round(100 * value, 2) + 0.0  # no -0.0


def _bounds(interval: Interval) -> list[float]:
    return [_percent(interval.low), _percent(interval.high)]


def _scores(tables: Tables) -> dict[str, Any]:
    """Percent with interval and by seed, the main score at the top as in eval.json."""
    entries = []
    for table in tables.values():
        interval = _interval(table)
        by_seed = {str(seed): _percent(_mean(row)) for seed, row in table.items()}
        score = {"score": _percent(interval.mean), "ci95": _bounds(interval), "by_seed": by_seed}
        entries.append(score)
    main, *others = entries
    return main | dict(zip([*tables][1:], others, strict=True))


def _mean(row: Mapping[str, float]) -> float:
    return sum(row.values()) / len(row)


def _against_first(
    tables: Mapping[tuple[str, str], Tables], arms: Sequence[str], stage: str
) -> list[dict[str, Any]]:
    """Each other arm against the first at one stage, corrected for how many they are."""
    reference, *others = arms
    found: list[dict[str, Any]] = [
        {"stage": stage, "arm": arm, "reference": reference} | change
        for arm in others
        if (change := _change(tables[arm, stage], tables[reference, stage], len(others)))
    ]
    for name in [*tables[reference, stage]]:
        parts = [entry.get(name, entry) for entry in found]  # the main score is the entry itself
        for part, adjusted in zip(parts, holm([part["p"] for part in parts]), strict=True):
            part["p_holm"] = round(adjusted, 5)
            if len(others) > 1 and adjusted >= 0.05:
                part["verdict"] = "not distinguishable"
    return found


def _change(after: Tables, before: Tables, comparisons: int = 1) -> dict[str, Any]:
    """Points by which `after` is above `before`, over the seeds of both; empty without any."""
    entries: dict[str, dict[str, Any]] = {}
    shared: list[int] = []
    for name, table in after.items():
        shared = [seed for seed in table if seed in before[name]]
        if not shared:
            return {}
        ids = [*table[shared[0]]]
        entries[name] = _difference(
            [[table[seed][i] - before[name][seed][i] for i in ids] for seed in shared], comparisons
        )
    main, *others = entries
    return {"seeds": shared} | entries[main] | {name: entries[name] for name in others}


def _difference(rows: Sequence[Sequence[float]], comparisons: int) -> dict[str, Any]:
    """What paired differences (seeds by records) say, in points, as one of several comparisons."""
    found, draws = crossed_estimate(rows), hierarchical_bootstrap(rows)
    interval = found.interval.within(-1.0, 1.0)  # shares
    entry = {
        "difference": _percent(interval.mean),
        "ci95": _bounds(interval),
        "verdict": verdict(interval),
        "bootstrap95": _bounds(percentile_interval(interval.mean, draws).within(-1.0, 1.0)),
        "confidence": round(prob_superiority(draws), 4),
        "p": round(found.p, 5),
    }
    if len(rows) > 1:  # one seed tells nothing of what others would show
        entry["superiority"] = round(prob_superiority([fmean(row) for row in rows]), 4)
        if (visible := found.minimum_detectable_effect(comparisons)) > 1e-9:
            entry["smallest_visible"] = _percent(visible)
    return entry
