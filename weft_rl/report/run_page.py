"""`report`: a self-contained HTML page of a run or a comparison."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weft_rl.config.fields import Block, about, argument, shown
from weft_rl.config.load import parse_options
from weft_rl.config.overrides import options_of
from weft_rl.config.schema import TOY_MODELS
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import RESULT
from weft_rl.io.safe_files import is_number, parsing, read_text
from weft_rl.plot.curves import read_curves, run_panels
from weft_rl.plot.figures import Bar, draw_bars, draw_curves, figure_svg
from weft_rl.report.chart_data import MAX_POINTS, chart, heatmaps, replays
from weft_rl.report.comparison_page import write_comparison_report
from weft_rl.report.render import write_page
from weft_rl.report.samples import sample_groups
from weft_rl.runs.folder import CONFIG, EVAL, INITIAL, METRICS, REPORT, read_config, read_results
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import Interval, crossed_mean, verdict

# By task: name and meaning of the main score; other tasks have a plain score.
_MAIN_SCORES = {
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

    path: str = field(metadata=about("directory of a run or a comparison"))


@dataclass(frozen=True)
class Row:
    """Scores of a stage or baseline by name, each (score, low, high) in percent."""

    stage: str
    label: str
    about: str
    n: int
    scores: dict[str, tuple[float, float, float]]
    is_baseline: bool


@dataclass(frozen=True)
class TaskScores:
    """Table of a task: stages in execution order, then baselines."""

    task: str
    meaning: str
    columns: list[str]  # the first is drawn as bars
    rows: list[Row]
    bars: Markup


def main(argv: Sequence[str]) -> int:
    """Write the report of the given directory and return the exit status."""
    description = "HTML report of a run or a comparison, written into its directory."
    options = parse_options(
        ReportConfig, argv, command="weft_rl.report", description=description, positional="path"
    )
    return run(options)


def run(config: ReportConfig) -> int:
    """Write the report and print its path. Returns 0. Raises UserError like write_report."""
    sys.stdout.write(f"{write_report(Path(config.path))}\n")
    return 0


def write_report(run: Path) -> Path:
    """Write report.html of a run or comparison, finished or not, and return its path.

    Raises UserError for a missing directory, one without run files, and an unreadable file."""
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; name a run directory")
    if (run / RESULT).exists():
        return write_comparison_report(run)
    if not any((run / name).exists() for name in (CONFIG, METRICS, EVAL)):
        raise UserError(f"{run}: holds no {CONFIG}, {METRICS} or {EVAL}; name a run directory")
    settings = read_config(run)
    with parsing(run / CONFIG):
        stages, versions, command = _stages(settings), settings.get("versions", {}), ""
        if not isinstance(versions, dict):
            raise TypeError("versions is not a mapping")
        if "stages" in settings:
            options = [f"stages={argument(settings['stages'])}", *options_of(settings)]
            command = shlex.join(["python", "-m", "weft_rl.pipeline", *options, "out=runs/again"])
    results, model = read_results(run), settings.get("model")
    with parsing(run / EVAL):
        baselines = results.pop("baselines", {})
        # stages can be evaluated out of order
        results = dict(sorted(results.items(), key=lambda item: _position(item[0], stages)))
        tasks = dict.fromkeys(task for entries in results.values() for task in entries)
        tables = [_task_scores(results, baselines, task, model) for task in tasks]
    groups = sample_groups(run, list(results))
    reward = read_curves(run, "reward").get("rl")
    curve = chart("reward in RL", {"reward": [reward] if reward else []})
    heat, played = heatmaps(run, stages), replays(run, list(results))
    return write_page(
        "report.html.j2",
        run / REPORT,
        name=run.resolve().name,
        summary=_summary(run, model, stages, tables),
        tables=tables,
        curves=_curves(run),
        smoothing=SMOOTHING,
        max_points=MAX_POINTS,
        interactive=bool(curve["lines"] or heat or played),
        chart=curve,
        heatmaps=heat,
        replays=played,
        groups=groups,
        config=read_text(run / CONFIG) if settings else "",
        versions=versions,
        revision=settings.get("revision", "unknown"),
        command=command,
    )


def _stages(settings: Mapping[str, Any]) -> list[str]:
    stages = settings.get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(stage, str) for stage in stages):
        raise TypeError("stages is not a list of names")
    return stages


def _position(stage: str, stages: Sequence[str]) -> int:
    return stages.index(stage) if stage in stages else -1 if stage == "base" else len(stages)


def _task_scores(
    results: Mapping[str, Any], shared: Mapping[str, Any], task: str, model: object
) -> TaskScores:
    """Return the table of a task. shared: baselines of all stages. model: eval.json's `base`."""
    main, meaning = _MAIN_SCORES.get(task, ("score", ""))
    stages = {name: entries[task] for name, entries in results.items() if task in entries}
    baselines = {name: entries[task] for name, entries in shared.items() if task in entries}
    for entry in stages.values():
        baselines |= entry.get("baselines", {})
    rows = []
    for name, entry in stages.items():
        label, description = name, _STAGES.get(name, "")
        if name == "base" and model not in (None, *TOY_MODELS):
            label, description = INITIAL, f"model={shown(model)}"
        rows.append(Row(name, label, description, _count(entry), _scores(entry, main), False))
    for name, entry in baselines.items():
        rows.append(Row(name, name, "without a model", _count(entry), _scores(entry, main), True))
    columns = list(dict.fromkeys(column for row in rows for column in row.scores))
    bars = [Bar(row.label, *row.scores[main], row.is_baseline) for row in rows]
    label = f"{task}, {main} after each stage in percent with 95% intervals, as in the table"
    svg = figure_svg(draw_bars(bars, f"{main} (%)"), label)
    return TaskScores(task, meaning, columns, rows, Markup(svg))


def _count(entry: Mapping[str, Any]) -> int:
    if not isinstance(entry["n"], int):
        raise TypeError("n is not a whole number")
    return entry["n"]


def _scores(entry: Mapping[str, Any], main: str) -> dict[str, tuple[float, float, float]]:
    """Return (score, low, high) by name; the main score is at the top level of the entry."""
    named = {main: entry} | {
        key: value for key, value in entry.items() if isinstance(value, dict) and "score" in value
    }
    scores = {}
    for name, value in named.items():
        low, high = value["ci95"]
        if not all(is_number(number) for number in (value["score"], low, high)):
            raise TypeError("a score or its interval is not a number")
        scores[name] = (value["score"], low, high)
    return scores


def _summary(run: Path, model: object, stages: Sequence[str], tables: Sequence[TaskScores]) -> str:
    lines = [f"Model {model}, stages {', then '.join(stages)}."] if stages else []
    for table in tables:
        main = table.columns[0]
        rows = [row for row in table.rows if not row.is_baseline]
        last, (score, low, high) = rows[-1], rows[-1].scores[main]
        line = (
            f"On {last.n} held-out {table.task} problems, {last.label} ends at {score:.1f}% "
            f"(95% interval {low:.1f} to {high:.1f})"
        )
        change = None
        if len(rows) > 1:
            # each stage starts from the checkpoint of the previous one
            before = rows[-2]
            line += f", from {before.scores[main][0]:.1f}% after {before.label}"
            change = _paired_change(run, table.task, before.stage, last.stage)
        lines.append(f"{line}.")
        if change:
            lines.append(
                f"Paired by problem, in this run alone, that is {100 * change.mean:+.1f} points "
                f"[{100 * change.low:.1f}, {100 * change.high:.1f}]: {verdict(change)}."
            )
        lines.append(table.meaning)
        baselines = [(row.scores[main][0], row.label) for row in table.rows if row.is_baseline]
        if baselines:
            best, name = max(baselines)
            lines.append(f"The best policy without a model, {name}, gets {best:.1f}%.")
    return " ".join(lines or ["Nothing has been evaluated yet."])


def _paired_change(run: Path, task: str, before: str, after: str) -> Interval | None:
    old, new = (_main_scores(run, task, stage) for stage in (before, after))
    changes = [new[record] - old[record] for record in old if record in new]
    return crossed_mean([changes]).within(-1.0, 1.0) if changes else None


def _main_scores(run: Path, task: str, stage: str) -> dict[str, float]:
    path = run / "completions" / f"eval-{stage}.jsonl"
    scores: dict[str, float] = {}
    with parsing(path):
        for row in read_lines(path):
            if row.get("task") == task and row.get("scores"):
                scores[str(row["id"])] = next(iter(row["scores"].values()))
        if not all(map(is_number, scores.values())):
            raise TypeError("a score is not a number")
    return scores


def _curves(run: Path) -> list[Markup]:
    return [
        Markup(
            figure_svg(
                draw_curves([panel], SMOOTHING, columns=1, panel_size=(4.8, 2.8)),
                f"{panel.title}: {line.values[0]:.4g} at step {line.steps[0]}, "
                f"{line.values[-1]:.4g} at step {line.steps[-1]}",
            )
        )
        for panel in run_panels(run)
        for line in panel.lines
    ]
