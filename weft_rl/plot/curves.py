"""`plot`: the curves of one or more runs, from their metrics.jsonl."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weft_rl.config.fields import Block, about, option, require, shown
from weft_rl.config.load import parse_options
from weft_rl.config.overrides import argument, flattened
from weft_rl.ema import SMOOTHING, time_weighted_ema
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.plot import figures
from weft_rl.plot.figures import Line, Panel
from weft_rl.runs.atomic_io import write_bytes
from weft_rl.runs.folder import CONFIG, METRICS, read_config
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import t_half_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = (".png", ".svg", ".html")
# Not metrics, though they are numbers.
_PLACES = ("step", "time_s")
# What a run's own figure shows of RL, in this order, with the titles.
_RL = {
    "reward": "reward",
    "kl": "KL to the start",
    "entropy": "entropy",
    "completion_length": "completion length (tokens)",
}
# Options without which equal rewards are not equally good.
_REWARDS = ("rewards", "rl.rollout.reward_weights")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 1rem auto; max-width: 60rem; padding: 0 1rem; font-family: system-ui, sans-serif; }}
svg {{ width: 100%; height: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
{svg}
</body>
</html>
"""


@dataclass(frozen=True)
class PlotConfig(Block):
    """Options of `plot`."""

    runs: list[str] = field(metadata=about("run folders, each drawn as a curve", at_least=1))
    out: str = option("curves.png", "image to write: .png, .svg or .html")
    metric: str = option("reward", "which metric of metrics.jsonl")
    smoothing: float = option(
        SMOOTHING, "weight of the bold moving average; 0 is none", at_least=0, at_most=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"must end in {', '.join(_KINDS)}; try curves.png"
        require(Path(self.out).suffix in _KINDS, "out", self.out, rule)


def main(argv: Sequence[str]) -> int:
    """Plot what the arguments name; returns the exit status."""
    about_it = "Curves of runs: raw values faint, their time-weighted average bold."
    options = parse_options(
        PlotConfig, argv, command="weft_rl.plot", description=about_it, positional="runs"
    )
    return run(options)


def run(config: PlotConfig) -> int:
    """Draw the runs' curves and say where; returns 0. Raises UserError like plot_runs."""
    folders, out = [Path(name) for name in config.runs], Path(config.out)
    plot_runs(folders, out, config.metric, config.smoothing)
    sys.stdout.write(f"{out}\n")
    return 0


def plot_runs(
    runs: Sequence[Path], out: Path, metric: str = "reward", smoothing: float = SMOOTHING
) -> None:
    """Draw a metric of several runs into one image: a curve for each stage that logged it.

    Runs without it are named below the curves. Raises UserError for a folder that does not exist,
    when no run has the metric or it does not mean the same in all, and for an image that cannot be
    written."""
    found: dict[Path, dict[str, Line]] = {}
    for folder in runs:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name run folders")
        found[folder] = read_curves(folder, metric)
    if not any(found.values()):
        raise UserError(_nothing(list(found), metric))
    _check_alike([folder for folder, stages in found.items() if stages], metric)
    names = _names(list(found))
    lines = [
        replace(line, label=names[folder] if len(stages) == 1 else f"{names[folder]} ({stage})")
        for folder, stages in found.items()
        for stage, line in stages.items()
    ]
    note = f"faint: as logged; bold: time-weighted average (smoothing {smoothing:g})"
    without = ", ".join(names[folder] for folder, stages in found.items() if not stages)
    note += f"\nno {metric} in {shown(without)}" if without else ""
    panels = [Panel(f"{metric}, {lines[0].label}" if len(lines) == 1 else metric, lines)]
    figure = figures.draw_curves(panels, smoothing, columns=1, panel_size=(7.2, 4.4), note=note)
    save_figure(figure, out, title=f"{metric} of {', '.join(names.values())}")


def plot_run(run: Path, out: Path) -> None:
    """Draw a run's own curves: reward, losses, and what else RL logged.

    Writes nothing for a run without curves: one that evaluates only has none."""
    panels = run_panels(run)
    if panels:
        columns = min(len(panels), 3)
        note = f"faint: as logged; bold: time-weighted average (smoothing {SMOOTHING:g})"
        figure = figures.draw_curves(
            panels, SMOOTHING, columns=columns, panel_size=(4.4, 3.0), note=note
        )
        save_figure(figure, out, title=f"curves of {run.resolve().name}")


def run_panels(run: Path) -> list[Panel]:
    """One panel for the reward, one for each training loss before RL, and RL's other metrics."""
    rows = list(read_lines(run / METRICS))
    losses = _curves(rows, "loss")
    panels = [Panel(f"loss, {stage}", [line]) for stage, line in losses.items() if stage != "rl"]
    rl = [
        Panel(f"{title}, rl", [line])
        for metric, title in _RL.items()
        for stage, line in _curves(rows, metric).items()
        if stage == "rl"
    ]
    return rl[:1] + panels + rl[1:]


def read_curves(run: Path, metric: str) -> dict[str, Line]:
    """A metric's curve in each stage that logged it, by stage; steps without it are left out."""
    return _curves(read_lines(run / METRICS), metric)


def mean_curve(label: str, lines: Sequence[Line], smoothing: float) -> Line:
    """The mean reward of several runs at the steps that all have, with its 95 % band.

    The band is Student's t over the runs, each smoothed by itself; smoothing is linear, so the
    smoothed mean lies in its middle. It is cut off where no reward can be, outside of [0, 1], but
    not on a side on which weights take some value out of that. Raises ValueError for curves without
    a common step."""
    curves = [dict(zip(line.steps, line.values, strict=True)) for line in lines]
    steps = [step for step in lines[0].steps if all(step in curve for curve in curves)]
    if not steps:
        raise ValueError("lines: have no step in common")
    values = np.array([[curve[step] for step in steps] for curve in curves])
    mean = values.mean(axis=0).tolist()
    if len(lines) == 1:
        return Line(label, steps, mean)
    smooth = np.array([time_weighted_ema(steps, row, smoothing) for row in values])
    half = t_half_width(smooth)
    middle = smooth.mean(axis=0)
    low, high = np.array([middle - half, middle + half])
    low = low if values.min() < 0 else low.clip(min=0)
    high = high if values.max() > 1 else high.clip(max=1)
    return Line(label, steps, mean, (low.tolist(), high.tolist()))


def mean_curves(arms: Mapping[str, Sequence[Line]]) -> list[Line]:
    """The mean curve of each arm's runs, by label; arms without a common step are left out."""
    return [
        mean_curve(
            f"{label}, mean of {len(runs)} runs" if len(runs) > 1 else label, runs, SMOOTHING
        )
        for label, runs in arms.items()
        if runs and set.intersection(*(set(run.steps) for run in runs))
    ]


def draw_means(title: str, means: Sequence[Line]) -> "Figure":
    """Mean curves with their bands, at least one, in one panel."""
    note = f"faint: as logged; bold: time-weighted average (smoothing {SMOOTHING:g})"
    return figures.draw_curves(
        [Panel(title, list(means))],
        SMOOTHING,
        columns=1,
        panel_size=(7.2, 4.4),
        note=f"{note}; area: its 95 % interval over runs",
    )


def _curves(rows: Iterable[dict[str, Any]], metric: str) -> dict[str, Line]:
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        step, value = row.get("step"), row.get(metric)
        if is_number(step) and is_number(value):
            # of a step that stands there twice the later line holds: a run repeated it
            points.setdefault(str(row.get("stage")), {})[step] = value
    return {
        stage: Line(stage, sorted(values), [values[step] for step in sorted(values)])
        for stage, values in points.items()
    }


def _names(runs: Sequence[Path]) -> dict[Path, str]:
    """The folders' names, or where two have one name, their paths from where all of them lie."""
    full = {run: run.resolve() for run in runs}
    names = {run: path.name for run, path in full.items()}
    if len(set(names.values())) == len(names):
        return names
    above = os.path.commonpath(full.values())
    return {run: str(path.relative_to(above)) for run, path in full.items()}


def _check_alike(runs: Sequence[Path], metric: str) -> None:
    """Raise UserError for runs whose metric does not mean the same; one without a configuration
    is taken at its word."""
    keys = ("task", *_REWARDS) if metric.startswith("reward") else ("task",)
    known: dict[str, tuple[Path, str]] = {}
    for run in runs:
        with parsing(run / CONFIG):
            options = {
                key: argument(value) for key, value in flattened(read_config(run)) if key in keys
            }
        for key, own in options.items():
            first, value = known.setdefault(key, (run, own))
            if own != value:
                raise UserError(
                    f"{run}: {key}={shown(own)}, but {first} has {key}={shown(value)}: their "
                    f"{metric} is not the same; plot them apart"
                )


def _nothing(runs: Sequence[Path], metric: str) -> str:
    """Why nothing can be drawn, and what could be."""
    logged = {
        key
        for run in runs
        for row in read_lines(run / METRICS)
        for key, value in row.items()
        if is_number(value) and key not in _PLACES
    }
    where = f"{', '.join(map(str, runs))}: no {metric} in {METRICS}"
    return (
        f"{where}; try metric= one of {', '.join(sorted(logged))}"
        if logged
        else (f"{where}, nor any other metric; name a run that has trained")
    )


def save_figure(figure: "Figure", out: Path, title: str) -> None:
    """Write an image whole or not at all, .png, .svg or .html as its ending says.

    Raises UserError when it cannot be written."""
    if out.suffix == ".png":
        image = figures.render(figure, "png")
    elif out.suffix == ".svg":
        image = figures.render(figure, "svg")
    else:
        svg = figures.figure_svg(figure, title)
        image = _PAGE.format(title=escape(title), svg=svg).encode("utf-8", "replace")
    try:
        write_bytes(out, image)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # no mistake of the user's
        raise UserError(
            f"out={out}: cannot be written ({error.strerror}); choose another"
        ) from error
