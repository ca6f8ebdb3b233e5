"""Report page of a comparison: verdicts, rewards, scores and runs."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weft_rl.config.overrides import options_of
from weft_rl.evaluation.paired_runs import RESULT, require_same_options, run_name
from weft_rl.io.safe_files import parsing
from weft_rl.plot.curves import draw_means, mean_curves, read_curves
from weft_rl.plot.figures import Bar, Line, draw_bars, figure_svg
from weft_rl.report.comparison_tables import (
    STAGE_LABELS,
    difference_rows,
    label,
    notes,
    recipe_rows,
    score_rows,
    sentences,
)
from weft_rl.report.page import chart, write_page
from weft_rl.runs.folder import CONFIG, REPORT, read_config, read_json


def write_comparison_report(folder: Path) -> Path:
    """Write a comparison's report.html. Raises UserError for bad files and differing options."""
    result, settings = read_json(folder / RESULT, {}), read_config(folder)
    with parsing(folder / RESULT):
        arms, seeds = result["arms"], result["seeds"]
        require_same_options(folder, arms, seeds)
        runs = [run_name(arm, seed) for arm in arms for seed in seeds]
        rewards = reward_curves(folder, result)
        values = {
            "held_out": f"{result['task']}, {result['n']} held-out records",
            "notes": notes(result),
            "sentences": sentences(result),
            "scores": score_rows(result),
            "differences": difference_rows(result),
            "bars": _bars(result),
            "curves": _curves(rewards),
            "chart": chart("reward in RL", rewards),
            "recipes": recipe_rows(arms),
            "units": [(run, (folder / run / REPORT).exists()) for run in runs],
        }
    with parsing(folder / CONFIG):
        options = [f"arms=[{','.join(arms)}]", f"seeds=[{','.join(map(str, seeds))}]"]
        options += [*options_of(settings.get("run", {})), "out=runs/again"]
    command = shlex.join(["python", "-m", "weft_rl.compare", *options])
    return write_page("comparison.html.j2", folder, settings, command, **values)


def _bars(result: Mapping[str, Any]) -> Markup:
    """Draw the scores of stages and baselines, without the base, which all arms share."""
    bars = [
        Bar(f"{label(arm)}, {STAGE_LABELS[stage]}", entry["score"], entry["ci95"])
        for arm, stages in result["results"].items()
        for stage, entry in stages.items()
        if stage != "base"
    ]
    bars += [
        Bar(name, entry["score"], entry["ci95"], is_baseline=True)
        for name, entry in result["baselines"].items()
    ]
    metric = result["metric"].replace("_", " ")
    description = f"{metric} of each arm in percent with 95% intervals, as in the table"
    return Markup(figure_svg(draw_bars({f"{metric} (%)": bars}), description))


def _curves(rewards: Mapping[str, list[Line]]) -> Markup | None:
    means = mean_curves(rewards)
    if not means:
        return None
    ends = "; ".join(f"{line.label}, ends at {line.values[-1]:.3f}" for line in means)
    return Markup(figure_svg(draw_means("reward in RL", means), f"reward in RL: {ends}"))


def reward_curves(folder: Path, result: Mapping[str, Any]) -> dict[str, list[Line]]:
    """Return the RL reward curves of each arm's runs, by arm label."""
    curves = {}
    for arm in result["arms"]:
        stages = [read_curves(folder / run_name(arm, seed), "reward") for seed in result["seeds"]]
        curves[label(arm)] = [lines["rl"] for lines in stages if "rl" in lines]
    return curves
