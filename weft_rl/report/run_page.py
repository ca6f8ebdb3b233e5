"""`report`: one HTML page on a run or a comparison, from its files, that needs no network."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weft_rl.config.fields import Block, about, shown
from weft_rl.config.load import parse_options
from weft_rl.config.overrides import argument, options_of
from weft_rl.config.schema import TOY_MODELS
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import RESULT
from weft_rl.io.safe_files import is_number, parsing, read_text
from weft_rl.plot import figures
from weft_rl.plot.curves import read_curves, run_panels
from weft_rl.plot.figures import Bar
from weft_rl.report.chart_data import MAX_POINTS, chart, heat, playbacks
from weft_rl.report.comparison_page import write_comparison_report
from weft_rl.report.render import write_page
from weft_rl.report.samples import sample_groups
from weft_rl.runs.folder import (
    CONFIG,
    EVAL,
    METRICS,
    REPORT,
    START,
    read_config,
    read_lines,
    read_results,
)
from weft_rl.stats import Interval, crossed_mean, verdict

# What a task's first score is called, and what it says; any other task has just a score.
_MAIN = {
    "sudoku": ("cells right", "A score is the share of empty cells that are filled correctly."),
    "countdown": ("exact", "A score is the share of problems that are answered exactly."),
}
_STAGES = {
    "base": "pretrained model",
    **{name: f"cold start: {recipe.label}" for name, recipe in RECIPES.items()},
    "rl": "reinforcement learning",
}


@dataclass(frozen=True)
class ReportConfig(Block):
    """Options of `report`."""

    path: str = field(metadata=about("folder of a run or of a comparison"))


@dataclass(frozen=True)
class Score:
    """A score in percent with its 95 % interval."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """The scores of one stage or baseline, by name, and the number of records behind them."""

    stage: str
    label: str
    about: str
    n: int
    scores: dict[str, Score]
    is_baseline: bool


@dataclass(frozen=True)
class TaskScores:
    """A task's table: stages in the order they ran, then baselines."""

    task: str
    meaning: str
    columns: list[str]  # the first one is drawn as bars
    rows: list[Row]
    bars: Markup


def main(argv: Sequence[str]) -> int:
    """Write the report that the arguments ask for; returns the exit status."""
    about_it = "The report of a run or a comparison: one HTML page, written into its folder."
    options = parse_options(
        ReportConfig, argv, command="weft_rl.report", description=about_it, positional="path"
    )
    return run(options)


def run(config: ReportConfig) -> int:
    """Write the report and say where; returns 0. Raises UserError like write_report."""
    sys.stdout.write(f"{write_report(Path(config.path))}\n")
    return 0


def write_report(run: Path) -> Path:
    """Write report.html into the folder of a run or a comparison, of whatever it holds by now.

    Returns its path. Raises UserError for a folder that does not exist or holds no file of a run,
    and for a file of it that cannot be read."""
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; name a run folder")
    if (run / RESULT).exists():
        return write_comparison_report(run)
    if not any((run / name).exists() for name in (CONFIG, METRICS, EVAL)):
        raise UserError(f"{run}: holds no {CONFIG}, {METRICS} or {EVAL}; name a run folder")
    settings = read_config(run)
    text = read_text(run / CONFIG) if settings else ""
    with parsing(run / CONFIG):
        stages, versions, command = _stages(settings), _versions(settings), _command(settings)
    results, start = read_results(run), settings.get("model")
    with parsing(run / EVAL):
        baselines = results.pop("baselines", {})
        # an evaluation may have come later than that of the stage after it
        results = dict(sorted(results.items(), key=lambda item: _place(item[0], stages)))
        tables = [_task_scores(results, baselines, task, start) for task in _tasks(results)]
    groups = sample_groups(run, list(results))
    curve = chart("reward in RL", {"reward": _reward(run)})
    heats, played = heat(run, stages), playbacks(run, list(results))
    return write_page(
        "report.html.j2",
        run / REPORT,
        name=run.resolve().name,
        summary=_summary(run, settings.get("model"), stages, tables),
        tables=tables,
        curves=_curves(run),
        smoothing=SMOOTHING,
        max_points=MAX_POINTS,
        is_live=bool(curve["lines"] or heats or played),
        chart=curve,
        heat=heats,
        playbacks=played,
        groups=groups,
        has_grids=any(sample.grid for group in groups for sample in group.samples),
        config=text,
        versions=versions,
        revision=settings.get("revision", "unknown"),
        command=command,
    )


def _stages(settings: Mapping[str, Any]) -> list[str]:
    stages = settings.get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(stage, str) for stage in stages):
        raise TypeError("stages is no list of names")
    return stages


def _versions(settings: Mapping[str, Any]) -> dict[str, Any]:
    versions = settings.get("versions", {})
    if not isinstance(versions, dict):
        raise TypeError("versions is no table")
    return versions


def _tasks(results: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(task for entries in results.values() for task in entries))


def _place(stage: str, ran: Sequence[Any]) -> int:
    """Where a stage stands among those of a run, which begins with its start."""
    return ran.index(stage) if stage in ran else -1 if stage == "base" else len(ran)


def _task_scores(
    results: Mapping[str, Any], shared: Mapping[str, Any], task: str, start: Any = None
) -> TaskScores:
    """The table of a task. Baselines stand in each stage's entry, equal, or are shared by all.

    start: the run's model, which eval.json calls base whatever it is."""
    main, meaning = _MAIN.get(task, ("score", ""))
    stages = {name: entries[task] for name, entries in results.items() if task in entries}
    baselines = {name: entries[task] for name, entries in shared.items() if task in entries}
    for entry in stages.values():
        baselines |= entry.get("baselines", {})
    rows = [_row(name, entry, main, start) for name, entry in stages.items()]
    rows += [_row(name, entry, main, is_baseline=True) for name, entry in baselines.items()]
    columns = list(dict.fromkeys(column for row in rows for column in row.scores))
    bars = [
        Bar(row.label, score.score, score.low, score.high, row.is_baseline)
        for row in rows
        for score in [row.scores[main]]
    ]
    label = f"{task}, {main} after each stage in percent with 95 % intervals, as in the table"
    svg = figures.figure_svg(figures.draw_bars(bars, f"{main} (%)"), label)
    return TaskScores(task, meaning, columns, rows, Markup(svg))


def _row(
    name: str, entry: Mapping[str, Any], main: str, start: Any = None, *, is_baseline: bool = False
) -> Row:
    others = {
        key: _score(value)
        for key, value in entry.items()
        if isinstance(value, dict) and "score" in value
    }
    about_it = "without a model" if is_baseline else _STAGES.get(name, "")
    if not isinstance(entry["n"], int):
        raise TypeError("n is no whole number")
    label = name
    if name == "base" and not is_baseline and start not in (None, *TOY_MODELS):
        label, about_it = START, f"model={shown(start)}"
    return Row(name, label, about_it, entry["n"], {main: _score(entry)} | others, is_baseline)


def _score(entry: Mapping[str, Any]) -> Score:
    low, high = entry["ci95"]
    if not all(is_number(value) for value in (entry["score"], low, high)):
        raise TypeError("a score or its interval is no number")
    return Score(entry["score"], low, high)


def _summary(run: Path, model: object, stages: Sequence[str], tables: Sequence[TaskScores]) -> str:
    """The outcome in plain words."""
    said = [f"Model {model} was put through {', then '.join(stages)}."] if stages else []
    for table in tables:
        main = table.columns[0]
        rows = [row for row in table.rows if not row.is_baseline]
        # a stage is compared with what it began from, which ran right before it
        before = rows[-2] if rows[1:] else rows[-1]
        first, last = before.scores[main], rows[-1].scores[main]
        outcome = (
            f"On {rows[-1].n} held-out {table.task} problems, {rows[-1].label} ends at "
            f"{last.score:.1f} % (95 % interval {last.low:.1f} to {last.high:.1f})"
        )
        outcome += f", from {first.score:.1f} % after {before.label}" if rows[1:] else ""
        said.append(f"{outcome}.")
        change = _paired(run, table.task, before.stage, rows[-1].stage) if rows[1:] else None
        if change:
            said.append(
                f"Problem by problem, in this run alone, that is {100 * change.mean:+.1f} points "
                f"[{100 * change.low:.1f}, {100 * change.high:.1f}]: {verdict(change)}."
            )
        said.append(table.meaning)
        baselines = [(row.scores[main].score, row.label) for row in table.rows if row.is_baseline]
        if baselines:
            score, name = max(baselines)
            said.append(f"The best policy without a model, {name}, gets {score:.1f} %.")
    return " ".join(said or ["Nothing has been evaluated yet."])


def _paired(run: Path, task: str, before: str, after: str) -> Interval | None:
    """The change of the main score over the records that both stages answered, for new records.

    None where their completions are not there."""
    old, new = (_main_scores(run, task, stage) for stage in (before, after))
    changes = [new[record] - old[record] for record in old if record in new]
    return crossed_mean([changes]).within(-1.0, 1.0) if changes else None


def _main_scores(run: Path, task: str, stage: str) -> dict[str, float]:
    """A stage's main score by record, where its completions have one."""
    path = run / "completions" / f"eval-{stage}.jsonl"
    scores: dict[str, float] = {}
    with parsing(path):
        for row in read_lines(path):
            if row.get("task") == task and row.get("scores"):
                scores[str(row["id"])] = next(iter(row["scores"].values()))
    if not all(map(is_number, scores.values())):
        raise UserError(f"{path}: a score is no number; mend or remove it")
    return scores


def _reward(run: Path) -> list[figures.Line]:
    line = read_curves(run, "reward").get("rl")
    return [line] if line else []


def _curves(run: Path) -> list[Markup]:
    return [
        Markup(
            figures.figure_svg(
                figures.draw_curves([panel], SMOOTHING, columns=1, panel_size=(4.8, 2.8)),
                f"{panel.title}: {line.values[0]:.4g} at step {line.steps[0]}, "
                f"{line.values[-1]:.4g} at step {line.steps[-1]}",
            )
        )
        for panel in run_panels(run)
        for line in panel.lines
    ]


def _command(settings: Mapping[str, Any]) -> str:
    """The command that repeats the run; empty without a configuration."""
    if "stages" not in settings:
        return ""
    words = [f"stages={argument(settings['stages'])}", *options_of(settings)]
    return shlex.join(["python", "-m", "weft_rl.pipeline", *words, "out=runs/again"])
