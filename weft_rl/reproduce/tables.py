"""The paper's tables from run directories, next to its numbers, as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.report.comparison import markdown_table
from weft_rl.report.run_report import main_scores
from weft_rl.reproduce.paper import (
    DATA_SETS,
    GRADIENT_NORMS,
    SCORES,
    PaperRun,
    Row,
    rows_of,
    run_of_cell,
    tasks_of,
)
from weft_rl.runs.atomic_io import write_text
from weft_rl.runs.folder import METRICS
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import (
    Interval,
    TwoWayEstimate,
    crossed_estimate,
    crossed_mean,
    record_mean,
    t_interval,
)

_TASKS = {"sudoku": "Sudoku", "countdown": "Countdown", "gsm8k": "GSM8K", "math500": "MATH500"}
_EMPTY = "–"  # noqa: RUF001 - an empty cell in the tables of papers
_RATES = {"weft_entropy": "entropy", "weft": "root of the entropy"}
_STATISTICS = {"max": np.max, "median": np.median, "mean": np.mean}

# Scores in [0, 1] by seed, over the same records.
Scores = Mapping[int, list[float]]


def score_table(
    folder: Path,
    number: int,
    runs: Mapping[PaperRun, Path],
    config: RunConfig,
    seeds: Sequence[int],
) -> list[Path]:
    """Write table<number>.md, .csv and .tex into the folder and return their paths.

    Scores are percent with 95% intervals for new seeds and new records. A cell without finished
    runs is a dash. The average is over the table's tasks."""
    rows, tasks = rows_of(number, config), tasks_of(number, config)
    cells: dict[tuple[Row, str], Scores] = {}
    for row, task in product(rows, tasks):
        units = {seed: run_of_cell(row, seed, task, config) for seed in seeds}
        done = {s: unit for s, unit in units.items() if unit in runs and unit.is_done(runs[unit])}
        cells[row, task] = _shared_records(
            {
                s: main_scores(runs[unit], task, unit.evaluated(runs[unit]))
                for s, unit in done.items()
            }
        )
    header = ["data", "model"]
    header += [name for task in tasks for name in (_TASKS[task], f"{_TASKS[task]}, paper")]
    header += ["average"] if len(tasks) > 1 else []
    body = []
    for row in rows:
        line = [_data(row, config.model), row.label]
        for task in tasks:
            line += [_interval(cells[row, task]), f"{row.printed[task]:.1f}"]
        line += [_average([cells[row, task] for task in tasks])] if len(tasks) > 1 else []
        body.append(line)
    counts = [
        f"{max(map(len, cells[rows[0], task].values()), default=0)} {_TASKS[task]}"
        for task in tasks
    ]
    notes = [
        f"Table {number}. {SCORES[number][0]}. Percent with 95% intervals for new seeds and new "
        f"records; model {config.model}, seeds {', '.join(map(str, seeds))}, held-out records: "
        f"{', '.join(counts)}.",
        "The paper's numbers are for LLaDA-8B-Instruct on its own data, without intervals.",
    ]
    missing = [
        f"{row.label}, {_TASKS[task]}: {len(scores)} of {len(seeds)} seeds"
        for (row, task), scores in cells.items()
        if len(scores) < len(seeds)
    ]
    notes += [f"Missing: {'; '.join(missing)}."] if missing else []
    return _write(folder, f"table{number}", [header, *body], notes)


def _data(row: Row, model: str) -> str:
    if row.arm == "base":
        return ""
    return f"traces of the {model} model" if model in TOY_MODELS else DATA_SETS[row.data]


def _shared_records(tables: Mapping[int, Mapping[str, float]]) -> Scores:
    """Return the scores by seed of those records that all seeds have. tables: by seed and id."""
    shared = sorted(set.intersection(*map(set, tables.values()))) if tables else []
    return {seed: [scores[record] for record in shared] for seed, scores in tables.items()}


def _interval(scores: Scores) -> str:
    rows = [*scores.values()]
    if not rows or not rows[0]:
        return _EMPTY
    # the base model is identical for all seeds: equal rows count as one measurement
    same = all(row == rows[0] for row in rows)
    mean = record_mean(rows[0]) if same else crossed_mean(rows)
    return _format(mean.within(0.0, 1.0), 100)


def _average(tasks: Sequence[Scores]) -> str:
    """Average the tasks' means over the seeds that all tasks share."""
    seeds = sorted(set.intersection(*(set(scores) for scores in tasks)))
    tables = [np.array([scores[seed] for seed in seeds]) for scores in tasks]
    if not seeds or not all(table.size for table in tables):
        return _EMPTY
    means = np.mean([table.mean(axis=1) for table in tables], axis=0)  # (S,)
    # tasks have disjoint records, so the variances of their means add up
    parts = [crossed_estimate(table) for table in tables]
    average = TwoWayEstimate(
        float(means.mean()),
        float(means.var(ddof=1)) / len(seeds) if len(seeds) > 1 else 0.0,
        sum(part.by_item for part in parts) / len(parts) ** 2,
        sum(part.noise for part in parts) / len(parts) ** 2,
        len(seeds),
        min(part.items for part in parts),
    )
    if average.half_width() == 0:  # no variance: omit the interval
        return f"{100 * average.mean:.1f}"
    return _format(average.interval.within(0.0, 1.0), 100)


def _geometric_mean(values: Sequence[float]) -> str:
    if not values:
        return _EMPTY
    if len(values) == 1 or min(values) <= 0:
        return f"{float(np.mean(values)):.1f}"
    logs = t_interval(np.log(values).tolist())
    return _format(Interval(*np.exp([logs.mean, logs.low, logs.high]).tolist()))


def _format(interval: Interval, scale: float = 1) -> str:
    mean, low, high = (scale * v + 0.0 for v in (interval.mean, interval.low, interval.high))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def norm_table(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Write table5.md, .csv and .tex: gradient norms of cold starts, before clipping.

    Each statistic is computed per run, then averaged geometrically over seeds: norms are positive,
    and maxima differ by factors between runs."""
    rows, num_steps = [], set()
    for arm, label in _RATES.items():
        series = [
            [row["grad_norm"] for row in read_lines(run / METRICS) if row.get("stage") == arm]
            for unit, run in runs.items()
            if unit.arm == arm
        ]
        series = [norms for norms in series if norms]
        num_steps |= {len(norms) for norms in series}
        row = [label]
        for reduce, printed in zip(_STATISTICS.values(), GRADIENT_NORMS[arm], strict=True):
            row += [_geometric_mean([float(reduce(norms)) for norms in series]), f"{printed:g}"]
        rows.append(row)
    header = ["rate", *(name for each in _STATISTICS for name in (each, f"{each}, paper"))]
    note = (
        "Table 5. Gradient norms over a cold start, before clipping; geometric means and 95% "
        f"intervals over {len({unit.seed for unit in runs})} seeds of "
        f"{', '.join(map(str, sorted(num_steps)))} steps."
    )
    return _write(folder, "table5", [header, *rows], [note])


def _write(
    folder: Path, name: str, rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> list[Path]:
    pages = {
        ".md": "\n\n".join([*notes, markdown_table(rows)]) + "\n",
        ".csv": csv_text(rows),
        ".tex": _latex(rows, " ".join(notes)),
    }
    for ending, page in pages.items():
        write_text(folder / f"{name}{ending}", page)
    return [folder / f"{name}{ending}" for ending in pages]


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _latex(rows: Sequence[Sequence[str]], caption: str) -> str:
    escaped = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {_EMPTY: "--"})
    header, *body = [" & ".join(cell.translate(escaped) for cell in row) + r" \\" for row in rows]
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{'l' * len(rows[0])}}}"]
    lines += [r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\caption{{{caption.translate(escaped)}}}", r"\end{table}", ""]
    return "\n".join(lines)
