"""The paper's tables from run folders, beside its numbers, as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from weft_rl.config.schema import TOY_MODELS
from weft_rl.reproduce.paper_numbers import DATA_SETS, GRADIENT_NORMS, SCORES, Row
from weft_rl.reproduce.required_runs import PaperRun
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

_TASKS = {
    "sudoku": "Sudoku",
    "countdown": "Countdown",
    "gsm8k": "GSM8K",
    "math500": "MATH500",
}
_NONE = "–"  # noqa: RUF001 - the dash that tables of papers have in an empty cell
_METHODS = {"weft_entropy": "entropy", "weft": "root of the entropy"}

# Of a cell: each seed's run folder, and the stage that its scores stand under.
Runs = Mapping[int, tuple[Path, str]]


def score_table(
    folder: Path,
    number: int,
    cells: Mapping[tuple[Row, str], Runs],
    model: str,
    seeds: Sequence[int],
) -> list[Path]:
    """Write table<number>.md, .csv and .tex into the folder; their paths.

    Scores are percent with 95 % intervals for new seeds and new records; a cell without runs is a
    dash. An average is of the tasks at hand, and has the seeds' interval alone."""
    rows = list(dict.fromkeys(row for row, _ in cells))
    tasks = [task for task in dict.fromkeys(task for _, task in cells) if task in rows[0].printed]
    average = len(tasks) > 1
    head = ["data", "model"]
    for task in tasks:
        head += [_TASKS[task], f"{_TASKS[task]}, paper"]
    head += ["average"] if average else []
    body = []
    for row in rows:
        found = [_values(cells[row, task], task) for task in tasks]
        line = [_data(row, model), row.label]
        for task, values in zip(tasks, found, strict=True):
            line += [_interval(values), f"{row.printed[task]:.1f}"]
        line += [_average(found)] if average else []
        body.append(line)
    counts = ", ".join(f"{_count(cells[rows[0], task], task)} {_TASKS[task]}" for task in tasks)
    title, _ = SCORES[number]
    notes = [
        f"Table {number}. {title}. Percent with 95 % intervals for new seeds and new records; "
        f"model {model}, seeds {', '.join(map(str, seeds))}, held-out problems: {counts}.",
        "The paper's numbers are LLaDA-8B-Instruct's, on its own data and without intervals.",
    ]
    missing = [
        f"{row.label}, {_TASKS[task]}: {len(cells[row, task])} of {len(seeds)} seeds"
        for row in rows
        for task in tasks
        if len(cells[row, task]) < len(seeds)
    ]
    if missing:
        notes.append(f"Missing: {'; '.join(missing)}.")
    return _write(folder, f"table{number}", head, body, notes)


def _data(row: Row, model: str) -> str:
    if row.arm == "base":
        return ""
    return f"traces of the {model} world" if model in TOY_MODELS else DATA_SETS[row.data]


def _values(runs: Runs, task: str) -> dict[int, dict[str, float]]:
    """The task's first score of each record by seed, over the records that all seeds have."""
    tables: dict[int, dict[str, float]] = {}
    for seed, (run, stage) in runs.items():
        rows = read_lines(run / "completions" / f"eval-{stage}.jsonl")
        tables[seed] = {
            str(row["id"]): next(iter(row["scores"].values()))
            for row in rows
            if row.get("task") == task
        }
    shared = set.intersection(*map(set, tables.values())) if tables else set()
    return {seed: {i: row[i] for i in sorted(shared)} for seed, row in tables.items()}


def _count(runs: Runs, task: str) -> int:
    return max((len(row) for row in _values(runs, task).values()), default=0)


def _interval(values: Mapping[int, Mapping[str, float]]) -> str:
    rows = [[*row.values()] for row in values.values()]
    if not rows or not rows[0]:
        return _NONE
    # the base is one model whatever the seed: equal rows are one measurement, not several
    same = all(row == rows[0] for row in rows)
    found = record_mean(rows[0]) if same else crossed_mean(rows)
    return _shown(found.within(0.0, 1.0), 100)


def _average(found: Sequence[Mapping[int, Mapping[str, float]]]) -> str:
    """Mean of the tasks' means over the seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(values) for values in found)))
    tables = [np.array([[*values[seed].values()] for seed in seeds]) for values in found]
    if not seeds or not all(table.size for table in tables):
        return _NONE
    means = np.mean([table.mean(axis=1) for table in tables], axis=0)  # (S,)
    # each task has records of its own: their parts of the mean's variance add up
    parts = [crossed_estimate(table) for table in tables]
    several = len(seeds) > 1
    average = TwoWayEstimate(
        float(means.mean()),
        float(means.var(ddof=1)) / len(seeds) if several else 0.0,
        sum(part.by_item for part in parts) / len(parts) ** 2,
        sum(part.noise for part in parts) / len(parts) ** 2,
        len(seeds),
        min(part.items for part in parts),
    )
    # all 0: each task's own column has the interval
    if average.half_width() == 0:
        return f"{100 * average.mean:.1f}"
    return _shown(average.interval.within(0.0, 1.0), 100)


def _geometric(values: Sequence[float]) -> str:
    if len(values) == 1 or min(values) <= 0:
        return f"{float(np.mean(values)):.1f}"
    logs = t_interval(np.log(values).tolist())
    return _shown(Interval(*np.exp([logs.mean, logs.low, logs.high]).tolist()))


def _shown(interval: Interval, scale: float = 1) -> str:
    mean, low, high = (scale * v + 0.0 for v in (interval.mean, interval.low, interval.high))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def norm_table(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Write table5.md, .csv and .tex: gradient norms over all steps of a cold start, unclipped.

    Each statistic is of one run; over seeds, its geometric mean and 95 % interval: norms are
    positive, and the largest one of a run varies by factors."""
    body, counts = [], set()
    for arm, name in _METHODS.items():
        series = [
            [row["grad_norm"] for row in read_lines(run / METRICS) if row.get("stage") == arm]
            for unit, run in runs.items()
            if unit.arm == arm
        ]
        series = [values for values in series if values]
        counts |= {len(values) for values in series}
        line = [name]
        for reduce, printed in zip((np.max, np.median, np.mean), GRADIENT_NORMS[arm], strict=True):
            found = [float(reduce(values)) for values in series]
            line += [_geometric(found) if found else _NONE, f"{printed:g}"]
        body.append(line)
    head = ["rate"]
    for name in ("max", "median", "mean"):
        head += [name, f"{name}, paper"]
    notes = [
        "Table 5. Gradient norms over a cold start, before clipping; geometric means and 95 % "
        f"intervals over {len({unit.seed for unit in runs})} seeds of "
        f"{', '.join(map(str, sorted(counts)))} steps."
    ]
    return _write(folder, "table5", head, body, notes)


def _write(
    folder: Path,
    name: str,
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    notes: Sequence[str],
) -> list[Path]:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *body])
    pages = {
        ".md": "\n\n".join([*notes, "\n".join(lines)]) + "\n",
        ".csv": text.getvalue(),
        ".tex": _latex(head, body, notes),
    }
    paths = []
    for ending, page in pages.items():
        paths.append(folder / f"{name}{ending}")
        write_text(paths[-1], page)
    return paths


def _latex(head: Sequence[str], body: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A booktabs table."""
    escaped = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"–": "--"})  # noqa: RUF001 - as above
    rows = [" & ".join(cell.translate(escaped) for cell in row) + r" \\" for row in (head, *body)]
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{'l' * len(head)}}}"]
    lines += [r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}"]
    caption = " ".join(notes).translate(escaped)
    return "\n".join([*lines, rf"\caption{{{caption}}}", r"\end{table}", ""])
