"""`report`: one HTML page on a run, from the files of its folder, that needs no network."""

import shlex
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rewards.grid import CELLS, DIGITS, SIZE, empty_cells
from rewards.sudoku import answer_digits
from weft_rl import figures
from weft_rl.cli import execute
from weft_rl.config.load import diff_configs, load_run_config, parse_options
from weft_rl.config.options import Block, about
from weft_rl.errors import UserError
from weft_rl.figures import Bar
from weft_rl.plot import SMOOTHING, run_panels
from weft_rl.runs import CONFIG, EVAL, METRICS, REPORT, read_json, read_lines, write_text

# Enough to see what a model does, without scrolling past it.
_SAMPLES = 6
# What a task's first score counts, in plain words; any other task has a "score".
_COUNTED = {"sudoku": "empty cells right", "countdown": "answers right"}
_STAGES = {
    "base": "pretrained start",
    "sft": "cold start: plain fine-tuning",
    "weft": "cold start: WeFT",
    "rl": "reinforcement learning",
}


@dataclass(frozen=True)
class ReportConfig(Block):
    """Options of `report`."""

    path: str = field(metadata=about("run folder"))


@dataclass(frozen=True)
class Score:
    """A score in percent with its 95 % interval."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """The scores of one stage or baseline, by name, and the number of records behind them."""

    label: str
    about: str
    n: int
    scores: dict[str, Score]
    is_baseline: bool


@dataclass(frozen=True)
class TaskScores:
    """A task's table: stages in the order they ran, then baselines."""

    task: str
    columns: list[str]  # the first one is drawn as bars
    rows: list[Row]
    bars: Markup


@dataclass(frozen=True)
class Cell:
    """A cell of a grid: what stands in it, and `clue`, `changed`, `right` or `wrong`."""

    text: str
    kind: str


@dataclass(frozen=True)
class Sample:
    """A completion; `grid` has four rows of cells for a Sudoku and is empty for anything else."""

    name: str
    reward: float | None
    verdict: str
    grid: list[list[Cell]]
    prompt: str
    completion: str


@dataclass(frozen=True)
class SampleGroup:
    """Some lines of one file of completions."""

    title: str
    choice: str  # which lines these are
    samples: list[Sample]


def main(argv: Sequence[str]) -> int:
    """Write the report that the arguments ask for; returns the exit status."""
    about_it = "A run's report: one HTML page, written into its folder."
    options = parse_options(
        ReportConfig, argv, command="weft_rl.report", description=about_it, positional="path"
    )
    return run(options)


def run(config: ReportConfig) -> int:
    """Write the report and say where; returns 0. Raises UserError like write_report."""
    sys.stdout.write(f"{write_report(Path(config.path))}\n")
    return 0


def write_report(run: Path) -> Path:
    """Write report.html into a run folder, of whatever the folder holds by now; returns its path.

    Raises UserError for a folder that does not exist or holds no file of a run."""
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; name a run folder")
    if not any((run / name).exists() for name in (CONFIG, METRICS, EVAL)):
        raise UserError(f"{run}: holds no {CONFIG}, {METRICS} or {EVAL}; name a run folder")
    config = (run / CONFIG).read_text(encoding="utf-8") if (run / CONFIG).exists() else ""
    settings = yaml.safe_load(config) or {}
    results = read_json(run / EVAL, {})
    tables = [_task_scores(results, task) for task in _tasks(results)]
    # StrictUndefined: a misspelt name in the template must not become an empty place
    environment = Environment(
        loader=PackageLoader("weft_rl"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        name=run.resolve().name,
        summary=_summary(settings, tables),
        tables=tables,
        curves=_curves(run),
        smoothing=SMOOTHING,
        groups=_sample_groups(run, list(results)),
        config=config,
        versions=settings.get("versions") or {},
        command=_command(config, settings),
    )
    # a model's text may hold half a surrogate pair, which no encoding writes
    write_text(run / REPORT, page.encode("utf-8", "replace").decode("utf-8"))
    return run / REPORT


def _tasks(results: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(task for entries in results.values() for task in entries))


def _task_scores(results: Mapping[str, Any], task: str) -> TaskScores:
    """The table of a task. Every stage's baselines are of the same records: the last ones stand."""
    main = _COUNTED.get(task, "score")
    stages = {name: entries[task] for name, entries in results.items() if task in entries}
    baselines = {
        name: entry
        for stage in stages.values()
        for name, entry in stage.get("baselines", {}).items()
    }
    rows = [_row(name, entry, main) for name, entry in stages.items()]
    rows += [_row(name, entry, main, is_baseline=True) for name, entry in baselines.items()]
    columns = list(dict.fromkeys(column for row in rows for column in row.scores))
    bars = [
        Bar(row.label, score.score, score.low, score.high, row.is_baseline)
        for row in rows
        for score in [row.scores[main]]
    ]
    label = f"Bars with 95 % intervals: {main} after each stage, in percent"
    svg = figures.figure_svg(figures.draw_bars(bars, f"{main} (%)"), label)
    return TaskScores(task, columns, rows, Markup(svg))


def _row(name: str, entry: Mapping[str, Any], main: str, *, is_baseline: bool = False) -> Row:
    others = {
        key: _score(value)
        for key, value in entry.items()
        if isinstance(value, dict) and "score" in value
    }
    scores = {main: _score(entry)} | others
    meaning = "without a model" if is_baseline else _STAGES.get(name, "")
    return Row(name, meaning, entry["n"], scores, is_baseline)


def _score(entry: Mapping[str, Any]) -> Score:
    return Score(entry["score"], *entry["ci95"])


def _summary(settings: Mapping[str, Any], tables: Sequence[TaskScores]) -> str:
    """The outcome in plain words."""
    trained = " then ".join(settings.get("stages") or [])
    said = [f"The {settings.get('model')} model went through {trained}."] if trained else []
    for table in tables:
        main = table.columns[0]
        stages = [row for row in table.rows if not row.is_baseline]
        first, last = stages[0].scores[main], stages[-1].scores[main]
        said.append(
            f"On {stages[-1].n} held-out {table.task} problems, {last.score:.1f} % of the {main} "
        )
    return " ".join(said)
