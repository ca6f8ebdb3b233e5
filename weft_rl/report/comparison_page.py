"""The page on a comparison: verdicts, rewards, scores and runs, from its folder's files."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weft_rl.config.overrides import flattened, options_of
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import RESULT, check_alike, unit_name
from weft_rl.io.safe_files import parsing, read_text
from weft_rl.plot import figures
from weft_rl.plot.curves import draw_means, mean_curves, read_curves
from weft_rl.plot.figures import Bar, Line
from weft_rl.report.chart_data import MAX_POINTS, chart
from weft_rl.report.comparison_tables import (
    TITLES,
    difference_rows,
    label,
    notes,
    score_rows,
    sentences,
)
from weft_rl.report.render import write_page
from weft_rl.runs.folder import CONFIG, REPORT, read_config, read_json

# What the page shows of a comparison.
_KEYS = {
    *("arms", "seeds", "task", "n", "metric", "others"),
    *("missing", "results", "differences", "gains", "baselines"),
}


def write_comparison_report(folder: Path) -> Path:
    """Write report.html into a comparison's folder; returns its path.

    Raises UserError for a file that cannot be read, and for runs that differ in their options."""
    result = read_json(folder / RESULT, {})
    settings = read_config(folder)
    text = read_text(folder / CONFIG) if settings else ""
    lacking = sorted(_KEYS - result.keys())
    if lacking:
        raise UserError(f"{folder / RESULT}: lacks {', '.join(lacking)}; repeat the comparison")
    with parsing(folder / CONFIG):
        versions = dict(settings.get("versions", {}))
        command = _command(result, settings.get("run", {}))
    with parsing(folder / RESULT):
        check_alike(folder, result["arms"], result["seeds"])
        values = _values(folder, result)
    return write_page(
        "comparison.html.j2",
        folder / REPORT,
        name=folder.resolve().name,
        result=result,
        smoothing=SMOOTHING,
        max_points=MAX_POINTS,
        config=text,
        versions=versions,
        revision=settings.get("revision", "unknown"),
        command=command,
        **values,
    )


def _values(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of the comparison's numbers."""
    rewards = reward_curves(folder, result)
    return {
        "notes": [*notes(result), *_gone(folder, result)],
        "sentences": sentences(result),
        "scores": score_rows(result),
        "differences": difference_rows(result),
        "bars": _bars(result),
        "curves": _curves(rewards),
        "is_live": bool(rewards),
        "chart": chart("reward in RL", rewards),
        "recipes": _recipes(result),
        "settings_differ": _differing(folder, result),
        "runs": _runs(folder, result),
    }


def _bars(result: Mapping[str, Any]) -> Markup:
    entries = {
        f"{label(arm)}, {TITLES[stage]}": entry
        for arm, stages in result["results"].items()
        for stage, entry in stages.items()
        if stage != "base"  # the same for all arms
    }
    bars = [Bar(name, entry["score"], *entry["ci95"]) for name, entry in entries.items()]
    bars += [
        Bar(name, entry["score"], *entry["ci95"], is_baseline=True)
        for name, entry in result["baselines"].items()
    ]
    metric = result["metric"].replace("_", " ")
    figure = figures.draw_bars(bars, f"{metric} (%)")
    spoken = f"{metric} of each arm in percent with 95 % intervals, as in the table"
    return Markup(figures.figure_svg(figure, spoken))


def _curves(rewards: Mapping[str, list[Line]]) -> Markup | None:
    """Each arm's reward in RL, its mean over the seeds that have come to it; None before any."""
    means = mean_curves(rewards)
    if not means:
        return None
    said = "; ".join(f"{line.label}, ends at {line.values[-1]:.3f}" for line in means)
    return Markup(figures.figure_svg(draw_means("reward in RL", means), f"reward in RL: {said}"))


def reward_curves(folder: Path, result: Mapping[str, Any]) -> dict[str, list[Line]]:
    """The reward curves of each arm's runs that have come to RL, by the arm's name."""
    lines: dict[str, list[Line]] = {}
    for arm in result["arms"]:
        runs = [folder / unit_name(arm, seed) for seed in result["seeds"]]
        found = [line for run in runs if (line := read_curves(run, "reward").get("rl"))]
        if found:
            lines[label(arm)] = found
    return lines


def _recipes(result: Mapping[str, Any]) -> list[list[str]]:
    """The table of the arms' recipes, its head first."""
    rows = [["arm", "masking rate", "weight"]]
    recipes = [RECIPES.get(arm) for arm in result["arms"]]
    rows += [[each.label, each.rate_words, each.weight] for each in recipes if each]
    return rows


def _differing(folder: Path, result: Mapping[str, Any]) -> list[list[str]]:
    """Options that the arms' runs of one seed do not share, stages apart; empty without any."""
    configs = {}
    for arm in result["arms"]:
        settings = read_config(folder / unit_name(arm, result["seeds"][0]))
        if settings:
            configs[label(arm)] = dict(flattened(settings))
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    rows = [
        [key, *(str(config.get(key, "")) for config in configs.values())]
        for key in keys
        if key not in ("stages", "out")
        and len({str(config.get(key)) for config in configs.values()}) > 1
    ]
    return [["option", *configs], *rows] if rows else []


def _runs(folder: Path, result: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Each run's name and, where it has been written, the path of its own report."""
    names = [unit_name(arm, seed) for arm in result["arms"] for seed in result["seeds"]]
    return [
        (name, f"{name}/{REPORT}" if (folder / name / REPORT).exists() else None) for name in names
    ]


def _gone(folder: Path, result: Mapping[str, Any]) -> list[str]:
    """A note on the runs that the numbers are of but whose folders are no longer there."""
    names = [unit_name(arm, seed) for arm in result["arms"] for seed in result["seeds"]]
    gone = [n for n in names if n not in result["missing"] and not (folder / n).is_dir()]
    said = f"Missing now: {', '.join(gone)}. The numbers are from when their folders were there."
    return [said] if gone else []


def _command(result: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The command that repeats the comparison; run: the options that all its runs share."""
    arms, seeds = ",".join(result["arms"]), ",".join(map(str, result["seeds"]))
    words = [f"arms=[{arms}]", f"seeds=[{seeds}]", *options_of(run), "out=runs/again"]
    return shlex.join(["python", "-m", "weft_rl.compare", *words])
