"""Report page of a comparison: verdicts, rewards, scores and runs."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weft_rl.config.overrides import options_of
from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import RESULT, require_same_options, run_name
from weft_rl.io.safe_files import parsing, read_text
from weft_rl.plot.curves import draw_means, mean_curves, read_curves
from weft_rl.plot.figures import Bar, Line, draw_bars, figure_svg
from weft_rl.report.chart_data import MAX_POINTS, chart
from weft_rl.report.comparison_tables import (
    STAGE_LABELS,
    difference_rows,
    label,
    notes,
    recipe_rows,
    score_rows,
    sentences,
)
from weft_rl.report.render import write_page
from weft_rl.runs.folder import CONFIG, REPORT, read_config, read_json
from weft_rl.runs.renamed import flattened

# Required keys of comparison.json.
_KEYS = {
    *("arms", "seeds", "task", "n", "metric", "others"),
    *("missing", "results", "differences", "gains", "baselines"),
}


def write_comparison_report(folder: Path) -> Path:
    """Write a comparison's report.html. Raises UserError for bad files and differing options."""
    result = read_json(folder / RESULT, {})
    settings = read_config(folder)
    missing = sorted(_KEYS - result.keys())
    if missing:
        raise UserError(f"{folder / RESULT}: lacks {', '.join(missing)}; repeat the comparison")
    with parsing(folder / CONFIG):
        versions = dict(settings.get("versions", {}))
        command = _command(result, settings.get("run", {}))
    with parsing(folder / RESULT):
        require_same_options(folder, result["arms"], result["seeds"])
        units = [run_name(arm, seed) for arm in result["arms"] for seed in result["seeds"]]
        rewards = reward_curves(folder, result)
        values = {
            "notes": [*notes(result), *_removed_runs(folder, result, units)],
            "sentences": sentences(result),
            "scores": score_rows(result),
            "differences": difference_rows(result),
            "bars": _bars(result),
            "curves": _curves(rewards),
            "chart": chart("reward in RL", rewards),
            "recipes": recipe_rows(result["arms"]),
            "settings_differ": _different_settings(folder, result),
            "units": [(unit, (folder / unit / REPORT).exists()) for unit in units],
        }
    return write_page(
        "comparison.html.j2",
        folder / REPORT,
        name=folder.resolve().name,
        result=result,
        smoothing=SMOOTHING,
        max_points=MAX_POINTS,
        interactive=bool(rewards),
        config=read_text(folder / CONFIG) if settings else "",
        versions=versions,
        revision=settings.get("revision", "unknown"),
        command=command,
        **values,
    )


def _bars(result: Mapping[str, Any]) -> Markup:
    """Draw the scores of stages and baselines, without the base, which all arms share."""
    scores = {
        f"{label(arm)}, {STAGE_LABELS[stage]}": entry
        for arm, stages in result["results"].items()
        for stage, entry in stages.items()
        if stage != "base"
    }
    bars = [Bar(name, entry["score"], *entry["ci95"]) for name, entry in scores.items()]
    bars += [
        Bar(name, entry["score"], *entry["ci95"], is_baseline=True)
        for name, entry in result["baselines"].items()
    ]
    metric = result["metric"].replace("_", " ")
    description = f"{metric} of each arm in percent with 95% intervals, as in the table"
    return Markup(figure_svg(draw_bars(bars, f"{metric} (%)"), description))


def _curves(rewards: Mapping[str, list[Line]]) -> Markup | None:
    means = mean_curves(rewards)
    if not means:
        return None
    ends = "; ".join(f"{line.label}, ends at {line.values[-1]:.3f}" for line in means)
    return Markup(figure_svg(draw_means("reward in RL", means), f"reward in RL: {ends}"))


def reward_curves(folder: Path, result: Mapping[str, Any]) -> dict[str, list[Line]]:
    """Return the RL reward curves of each arm's runs, by arm label."""
    curves: dict[str, list[Line]] = {}
    for arm in result["arms"]:
        runs = [folder / run_name(arm, seed) for seed in result["seeds"]]
        lines = [line for run in runs if (line := read_curves(run, "reward").get("rl"))]
        if lines:
            curves[label(arm)] = lines
    return curves


def _different_settings(folder: Path, result: Mapping[str, Any]) -> list[list[str]]:
    """Return the options that differ between arms, with a header; stages and out are ignored."""
    configs = {}
    for arm in result["arms"]:
        settings = read_config(folder / run_name(arm, result["seeds"][0]))
        if settings:
            configs[label(arm)] = dict(flattened(settings))
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    rows = [[key, *(str(config.get(key)) for config in configs.values())] for key in keys]
    rows = [row for row in rows if len({*row[1:]}) > 1 and row[0] not in ("stages", "out")]
    return [["option", *configs], *rows] if rows else []


def _removed_runs(folder: Path, result: Mapping[str, Any], units: list[str]) -> list[str]:
    gone = [
        unit for unit in units if unit not in result["missing"] and not (folder / unit).is_dir()
    ]
    return [f"Directories no longer here: {', '.join(gone)}. The numbers include them."] * bool(
        gone
    )


def _command(result: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    arms, seeds = ",".join(result["arms"]), ",".join(map(str, result["seeds"]))
    options = [f"arms=[{arms}]", f"seeds=[{seeds}]", *options_of(run), "out=runs/again"]
    return shlex.join(["python", "-m", "weft_rl.compare", *options])
