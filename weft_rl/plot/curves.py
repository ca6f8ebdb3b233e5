"""Curves from metrics.jsonl: single runs, and means over runs."""

import errno
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weft_rl.ema import SMOOTHING, time_weighted_ema
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number
from weft_rl.plot.figures import Line, Panel, draw_curves, figure_svg, render
from weft_rl.runs.atomic_io import write_bytes
from weft_rl.runs.folder import METRICS
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import t_half_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# RL metrics of a run's figure, in order, with titles.
_RL = {
    "reward": "reward",
    "kl": "KL to the reference model",
    "entropy": "entropy",
    "completion_length": "completion length (tokens)",
}
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


def caption(smoothing: float = SMOOTHING) -> str:
    """Return the note below curves."""
    return f"faint: as logged; bold: time-weighted average (smoothing {smoothing:g})"


def plot_run(run: Path, out: Path) -> None:
    """Draw the reward, loss and other RL curves of a run; write nothing without curves."""
    panels = run_panels(run)
    if panels:
        columns = min(len(panels), 3)
        figure = draw_curves(
            panels, SMOOTHING, columns=columns, panel_size=(4.4, 3.0), note=caption()
        )
        save_figure(figure, out, title=f"curves of {run.resolve().name}")


def run_panels(run: Path) -> list[Panel]:
    """Return panels for the reward, each training loss before RL, and other RL metrics."""
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
    """Return a metric's curve by stage; steps without the metric are skipped."""
    return _curves(read_lines(run / METRICS), metric)


def _curves(rows: Iterable[dict[str, Any]], metric: str) -> dict[str, Line]:
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        step, value = row.get("step"), row.get(metric)
        if is_number(step) and is_number(value):
            # a resumed run may log a step twice; keep the later line
            points.setdefault(str(row.get("stage")), {})[step] = value
    return {
        stage: Line(stage, sorted(values), [values[step] for step in sorted(values)])
        for stage, values in points.items()
    }


def mean_curve(label: str, lines: Sequence[Line], smoothing: float) -> Line:
    """Average the rewards of several runs at their common steps, with a 95% band.

    The band is Student's t over the smoothed runs, clipped to [0, 1] unless weighted rewards exceed
    that range. Smoothing is linear, so the smoothed mean is its center. Raises ValueError for
    curves without a common step."""
    curves = [dict(zip(line.steps, line.values, strict=True)) for line in lines]
    steps = [step for step in lines[0].steps if all(step in curve for curve in curves)]
    if not steps:
        raise ValueError("lines: no common step")
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
    """Return each arm's mean curve; arms without a common step are skipped."""
    return [
        mean_curve(
            f"{label}, mean of {len(runs)} runs" if len(runs) > 1 else label, runs, SMOOTHING
        )
        for label, runs in arms.items()
        if runs and set.intersection(*(set(run.steps) for run in runs))
    ]


def draw_means(title: str, means: Sequence[Line]) -> "Figure":
    """Draw mean curves (at least one) with their bands in one panel."""
    note = f"{caption()}; area: its 95% interval over runs"
    panels = [Panel(title, [*means])]
    return draw_curves(panels, SMOOTHING, columns=1, panel_size=(7.2, 4.4), note=note)


def save_figure(figure: "Figure", out: Path, title: str) -> None:
    """Write an image atomically as .png, .svg or .html. Raises UserError if that fails."""
    if out.suffix in (".png", ".svg"):
        image = render(figure, "png" if out.suffix == ".png" else "svg")
    else:
        svg = figure_svg(figure, title)
        image = _PAGE.format(title=escape(title), svg=svg).encode("utf-8", "replace")
    try:
        write_bytes(out, image)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # not a user error
        raise UserError(
            f"out={out}: cannot be written ({error.strerror}); choose another"
        ) from error
