"""What a comparison says: the runs' held-out scores, paired over seeds and records, as tables.

Scores are shares in [0, 1] inside and percent or points in the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.runs import EVAL, read_json, read_lines
from weft_rl.stats import Interval, crossed_mean, verdict

RESULT = "comparison.json"
# A run's stages by their part in a comparison: what the cold start is called differs by arm.
STAGES = ("base", "cold_start", "rl")
TITLES = {"base": "base", "cold_start": "cold start", "rl": "then RL"}
_LABELS = {
    "sft": "SFT",
    "weft": "WeFT",
    "weft_paper": "WeFT (as printed)",
    "weft_exact": "WeFT (exact bound)",
    "weft_entropy": "WeFT (entropy)",
    "nll": "NLL",
    "weft_sw": "WeFT (SW)",
    "dream": "Dream",
    "dft": "DFT",
    "rho1": "Rho-1",
}

Table = Mapping[int, Mapping[str, float]]  # seed -> record's id -> value
Tables = Mapping[str, Table]  # by score name, the task's main score first


@dataclass(frozen=True)
class Unit:
    """One run of a comparison: its held-out scores, as far as it has come."""

    arm: str
    seed: int
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]  # stage -> record's id -> name -> share
    baselines: Mapping[str, Any]  # as eval.json has them


def unit_name(arm: str, seed: int) -> str:
    """What a run of a comparison is called, its folder too."""
    return f"{arm}-seed{seed}"


def read_unit(folder: Path, arm: str, seed: int, task: str) -> Unit:
    """The scores in a run folder; stages that are not evaluated yet, or all, are left out.

    Raises UserError when a file of completions does not hold what eval.json speaks of."""
    evaluated = read_json(folder / EVAL, {})
    scores: dict[str, dict[str, dict[str, float]]] = {}
    baselines: dict[str, Any] = {}
    for part, stage in zip(STAGES, ("base", arm, "rl"), strict=True):
        if task not in evaluated.get(stage, {}):
            continue
        path = folder / "completions" / f"eval-{stage}.jsonl"
        rows = [row for row in read_lines(path) if row.get("task") == task]
        scores[part] = {str(row["id"]): row["scores"] for row in rows}
        entry = evaluated[stage][task]
        baselines = entry.get("baselines", {})
        if not len(scores[part]) == len(rows) == entry["n"]:
            raise UserError(
                f"{path}: holds {len(scores[part])} records, {EVAL} speaks of {entry['n']}; "
                f"remove {folder} and repeat the command"
            )
    return Unit(arm, seed, scores, baselines)


def compare_units(
    units: Sequence[Unit], arms: Sequence[str], seeds: Sequence[int], task: str
) -> dict[str, Any]:
    """The content of comparison.json. Differences are taken over the seeds that both sides have.

    The first of two arms is the reference. Raises UserError when runs were evaluated on
    different records, ValueError when none was evaluated."""
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
                stage: _scores(tables[arm, stage], one_model=stage == "base")
                for stage in STAGES
                if tables[arm, stage][names[0]]
            }
            for arm in arms
        },
        "differences": [
            {"stage": stage, "arm": arm, "reference": reference} | change
            for stage in ("rl", "cold_start")
            for reference, arm in combinations(arms, 2)
            if (change := _change(tables[arm, stage], tables[reference, stage]))
        ],
        "gains": [
            {"arm": arm, "stage": stage, "before": before} | change
            for arm in arms
            for before, stage in pairwise(STAGES)
            if (change := _change(tables[arm, stage], tables[arm, before]))
        ],
        "baselines": next((unit.baselines for unit in units if unit.baselines), {}),
    }


def _common_records(units: Sequence[Unit]) -> tuple[list[str], set[str]]:
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


def _table(units: Sequence[Unit], arm: str, stage: str, name: str) -> Table:
    return {
        unit.seed: {record: scores[name] for record, scores in unit.scores[stage].items()}
        for unit in units
        if unit.arm == arm and stage in unit.scores
    }


def _interval(table: Table, *, one_model: bool = False) -> Interval:
    """Mean over seeds and records with its interval; with one_model, seeds are not a sample."""
    ids = [*next(iter(table.values()))]
    rows = [[row[record] for record in ids] for row in table.values()]
    # the base is the same model whatever the seed: equal rows are one measurement, not several
    same = one_model and all(row == rows[0] for row in rows)
    return crossed_mean(rows[:1] if same else rows)


def _percent(value: float) -> float:
    return round(100 * value, 2) + 0.0  # no -0.0


def _bounds(interval: Interval) -> list[float]:
    return [_percent(interval.low), _percent(interval.high)]


def _scores(tables: Tables, *, one_model: bool) -> dict[str, Any]:
    """Percent with interval and by seed, the main score at the top as in eval.json."""
    entries = []
    for table in tables.values():
        interval = _interval(table, one_model=one_model)
        by_seed = {str(seed): _percent(_mean(row)) for seed, row in table.items()}
        score = {"score": _percent(interval.mean), "ci95": _bounds(interval), "by_seed": by_seed}
        entries.append(score)
    main, *others = entries
    return main | dict(zip([*tables][1:], others, strict=True))


def _mean(row: Mapping[str, float]) -> float:
    return sum(row.values()) / len(row)


def _change(after: Tables, before: Tables) -> dict[str, Any]:
    """Points by which `after` is above `before`, over the seeds of both; empty without any."""
    entries: dict[str, dict[str, Any]] = {}
    shared: list[int] = []
    for name, table in after.items():
        shared = [seed for seed in table if seed in before[name]]
        if not shared:
            return {}
        paired = {
            seed: {record: table[seed][record] - before[name][seed][record] for record in row}
            for seed, row in ((seed, table[seed]) for seed in shared)
        }
        interval = _interval(paired)
        entries[name] = {
            "difference": _percent(interval.mean),
            "ci95": _bounds(interval),
            "verdict": verdict(interval),
        }
    main, *others = entries
    return {"seeds": shared} | entries[main] | {name: entries[name] for name in others}


def label(arm: str) -> str:
    """An arm's name in prose."""
    return _LABELS.get(arm, arm)


def score_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The table of scores, its head first: arm, stage, each score with interval, by seed."""
    names = [result["metric"], *result["others"]]
    rows = [["arm", "stage", *map(_spoken, names), f"{_spoken(names[0])} by seed"]]
    for arm, stages in result["results"].items():
        for stage, entry in stages.items():
            by_seed = ", ".join(f"{value:.1f}" for value in entry["by_seed"].values())
            rows.append([label(arm), TITLES[stage], *_cells(entry, result["others"]), by_seed])
    for name, entry in result["baselines"].items():
        rows.append(["no model", name, *_cells(entry, result["others"]), ""])
    return rows


def _cells(entry: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    parts = [entry, *(entry[name] for name in others)]
    return [f"{part['score']:.1f} {_range(part)}" for part in parts]


def _range(part: Mapping[str, Any]) -> str:
    return f"[{part['ci95'][0]:.1f}, {part['ci95'][1]:.1f}]"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def difference_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The table of differences, its head first: what is compared, points of each score."""
    names = [result["metric"], *result["others"]]
    rows = [["points", *map(_spoken, names)]]
    for subject, entry in _subjects(result):
        parts = [entry, *(entry[name] for name in result["others"])]
        cells = [f"{part['difference']:+.1f} {_range(part)} {part['verdict']}" for part in parts]
        rows.append([subject, *cells])
    return rows


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Each difference between arms, then each stage's gain, as a sentence on the main score."""
    return [
        f"{subject}: {entry['difference']:+.1f} points {_range(entry)} of "
        f"{_spoken(result['metric'])} over {_seeds(entry['seeds'], result['seeds'])}: "
        f"{entry['verdict']}."
        for subject, entry in _subjects(result)
    ]


def _subjects(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each difference and gain, with what it compares in words."""
    found = []
    for entry in result["differences"]:
        arm, reference = label(entry["arm"]), label(entry["reference"])
        after = f"{arm} then RL against {reference} then RL"
        before = f"{arm} against {reference}, before RL"
        found.append((after if entry["stage"] == "rl" else before, entry))
    for entry in result["gains"]:
        arm = label(entry["arm"])
        found.append((f"RL after {arm}" if entry["stage"] == "rl" else f"{arm} after base", entry))
    return found


def _seeds(used: Sequence[int], asked: Sequence[int]) -> str:
    if len(used) < len(asked):
        return f"{len(used)} of {len(asked)} seeds ({', '.join(map(str, used))})"
    return f"{len(used)} seed{'s' if len(used) > 1 else ''}"


def notes(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know of how far the numbers carry."""
    lines = []
    if result["missing"]:
        lines.append(
            f"Missing: {', '.join(result['missing'])}. A difference is over the seeds that both "
            "of its sides have."
        )
    if len(result["seeds"]) == 1:
        lines.append("With one seed the intervals are for new records, not for new seeds.")
    return lines


def to_markdown(result: Mapping[str, Any]) -> str:
    """The content of comparison.md."""
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        f"# {', '.join(map(label, result['arms']))}: each with RL after it",
        f"Task {result['task']}, {result['n']} held-out records, seeds {seeds}. Percent, with 95 % "
        "intervals for new seeds and new records.",
        *notes(result),
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        _markdown_table(score_rows(result)),
        _markdown_table(difference_rows(result)),
    ]
    return "\n\n".join(lines) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))
