"""Report page of a run: scores, curves, token entropies, replays and completions."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from weft_rl.config.fields import argument, shown
from weft_rl.config.overrides import options_of
from weft_rl.config.schema import TOY_MODELS
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import RESULT
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.plot.curves import read_curves, run_curves
from weft_rl.plot.figures import Bar, draw_bars, draw_curves, figure_svg
from weft_rl.report.comparison import score_cell, write_comparison_report
from weft_rl.report.page import chart, heatmaps, replays, write_page
from weft_rl.report.samples import sample_groups
from weft_rl.runs.folder import (
    CONFIG,
    EVAL,
    INITIAL,
    METRICS,
    NELBO,
    REPORT,
    read_config,
    read_results,
)
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import crossed_mean, verdict

# By task: name and meaning of the main score; other tasks have a plain score.
_MAIN_SCORES = {
    "sudoku": ("cells right", "A score is the share of empty cells that are filled correctly."),
    "countdown": ("exact", "A score is the share of problems that are answered exactly."),
}
_STAGES = {
    "base": "pretrained model",
    "a2d": "adapted to diffusion",
    **{name: f"cold start: {recipe.label}" for name, recipe in RECIPES.items()},
    "rl": "reinforcement learning",
}


class TaskScores(NamedTuple):
    """Scores of a task: its stages in execution order, then baselines, in percent."""

    task: str
    stages: list[str]
    num_records: int
    bars: list[Bar]  # main scores
    figure: Markup  # of the bars
    rows: list[list[str]]  # table of all scores; the first row is the header


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run or comparison, finished or not, and return its path.

    out: the HTML file; None: report.html in the directory. Raises UserError for a
    missing directory, one without run files, and a file that cannot be read or written."""
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; name a run directory")
    if (run / RESULT).exists():
        return write_comparison_report(run, out)
    if not any((run / name).exists() for name in (CONFIG, METRICS, EVAL)):
        raise UserError(f"{run}: holds no {CONFIG}, {METRICS} or {EVAL}; name a run directory")
    settings, results = read_config(run), read_results(run)
    stages, model, command = settings.get("stages", []), settings.get("model"), ""
    with parsing(run / CONFIG):
        if not isinstance(stages, list) or not all(isinstance(stage, str) for stage in stages):
            raise TypeError("stages is not a list of names")
        if "stages" in settings:
            options = [f"stages={argument(stages)}", *options_of(settings), "out=runs/again"]
            command = shlex.join(["python", "-m", "weft_rl.pipeline", *options])
    with parsing(run / EVAL):
        baselines = results.pop("baselines", {})
        # stages can be evaluated out of order
        nelbos = {stage: entry.pop(NELBO) for stage, entry in results.items() if NELBO in entry}
        order = {"base": -1, "a2d": -1} | {stage: place for place, stage in enumerate(stages)}
        evaluated = sorted(
            filter(results.get, results), key=lambda stage: order.get(stage, len(stages))
        )
        tasks = dict.fromkeys(task for stage in evaluated for task in results[stage])
        tables = [
            _task_scores(
                task,
                {stage: results[stage][task] for stage in evaluated if task in results[stage]},
                {name: entries[task] for name, entries in baselines.items() if task in entries},
                model,
            )
            for task in tasks
        ]
        lines = [nelbo_sentence(stage, entry) for stage, entry in nelbos.items()]
    reward = read_curves(run, "reward").get("rl")
    return write_page(
        "report.html.j2",
        run,
        out or run / REPORT,
        settings,
        command,
        summary=" ".join([_summary(run, model, stages, tables), *lines]),
        tables=tables,
        curves=_curves(run),
        chart=chart("reward in RL", {"reward": [reward] if reward else []}),
        heatmaps=heatmaps(run, stages),
        replays=replays(run, evaluated),
        groups=sample_groups(run, evaluated),
    )


def _task_scores(
    task: str, stages: Mapping[str, Any], baselines: Mapping[str, Any], model: object
) -> TaskScores:
    """Return the scores of a task. baselines: those of all stages. model: eval.json's `base`."""
    main, _ = _MAIN_SCORES.get(task, ("score", ""))
    labels = {stage: (stage, _STAGES.get(stage, "")) for stage in stages}
    if model not in (None, *TOY_MODELS):
        labels["base"] = (INITIAL, f"model={shown(model)}")
    for entry in stages.values():
        baselines = {**baselines, **entry.get("baselines", {})}
    entries = [(*labels[stage], entry) for stage, entry in stages.items()]
    entries += [(name, "no model", entry) for name, entry in baselines.items()]
    bars, cells = [], []
    for label, about, entry in entries:
        if not all(map(is_number, (entry["score"], *entry["ci95"]))):
            raise TypeError("a score or its interval is not a number")
        bars.append(Bar(label, entry["score"], entry["ci95"], about == "no model"))
        others = {name: value for name, value in entry.items() if _is_score(value)}
        cells.append({name: score_cell(value) for name, value in ({main: entry} | others).items()})
    columns = list(dict.fromkeys(name for row in cells for name in row))
    rows = [["stage", *columns, "n"]]
    for (label, about, entry), row in zip(entries, cells, strict=True):
        title = f"{label}: {about}" if about else label
        rows.append([title, *(row.get(name, "") for name in columns), f"{entry['n']:d}"])
    label = f"{task}, {main} after each stage in percent with 95% intervals, as in the table"
    figure = Markup(figure_svg(draw_bars({f"{main} (%)": bars}), label))
    num_records = entries[len(stages) - 1][-1]["n"]
    return TaskScores(task, [*stages], num_records, bars, figure, rows)


def _is_score(value: object) -> bool:
    return isinstance(value, dict) and "score" in value


def _summary(run: Path, model: object, stages: Sequence[str], tables: Sequence[TaskScores]) -> str:
    lines = [f"Model {model}, stages {', then '.join(stages)}."] if stages else []
    for task, stages, num_records, bars, *_ in tables:
        *earlier, last = bars[: len(stages)]
        low, high = last.interval or (0.0, 100.0)
        line = (
            f"On {num_records} held-out {task} problems, {last.label} ends at {last.value:.1f}% "
            f"(95% interval {low:.1f} to {high:.1f})"
        )
        if earlier:
            # each stage starts from the checkpoint of the previous one
            line += f", from {earlier[-1].value:.1f}% after {earlier[-1].label}"
        lines.append(f"{line}.")
        lines += _paired_change(run, task, *stages[-2:]) if earlier else []
        lines += _MAIN_SCORES[task][1:] if task in _MAIN_SCORES else []
        baselines = [(bar.value, bar.label) for bar in bars[len(stages) :]]
        if baselines:
            best, name = max(baselines)
            lines.append(f"The best policy without a model, {name}, gets {best:.1f}%.")
    return " ".join(lines or ["Nothing has been evaluated yet."])


def nelbo_sentence(stage: str, entry: Mapping[str, Any]) -> str:
    """Describe the entry of a stage's NELBO in eval.json."""
    return (
        f"After {stage}, the NELBO of {entry['n']:d} held-out records is {entry['mean']:.3f} nats "
        f"per trained token (standard error {entry['se']:.3f}), from {entry['before']:.3f} before; "
        f"the unigram entropy of these tokens is {entry['unigram_entropy']:.3f}."
    )


def _paired_change(run: Path, task: str, before: str, after: str) -> list[str]:
    old, new = (main_scores(run, task, stage) for stage in (before, after))
    changes = [new[record] - old[record] for record in old if record in new]
    if not changes:
        return []
    change = crossed_mean([changes]).within(-1.0, 1.0)
    return [
        f"Paired by problem, in this run alone, that is {100 * change.mean:+.1f} points "
        f"[{100 * change.low:.1f}, {100 * change.high:.1f}]: {verdict(change)}."
    ]


def main_scores(run: Path, task: str, stage: str) -> dict[str, float]:
    """Return the main score in [0, 1] of each record in a stage's evaluation, by record id."""
    path = run / "completions" / f"eval-{stage}.jsonl"
    with parsing(path):
        scores = {
            str(row["id"]): next(iter(row["scores"].values()))
            for row in read_lines(path)
            if row.get("task") == task and row.get("scores")
        }
        if not all(map(is_number, scores.values())):
            raise TypeError("a score is not a number")
    return scores


def _curves(run: Path) -> list[Markup]:
    return [
        Markup(
            figure_svg(
                draw_curves({title: [line]}, panel_size=(4.8, 2.8)),
                f"{title}: {line.values[0]:.4g} at step {line.steps[0]}, "
                f"{line.values[-1]:.4g} at step {line.steps[-1]}",
            )
        )
        for title, line in run_curves(run).items()
    ]
