"""Curves from metrics.jsonl: single runs, and means over runs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weft_rl.ema import SMOOTHING, time_weighted_ema
from weft_rl.io.safe_files import is_number
from weft_rl.plot.figures import Line, draw_curves, save_figure
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


def caption(smoothing: float = SMOOTHING) -> str:
    """Return the note below curves."""
    return f"faint: as logged; bold: time-weighted average (smoothing {smoothing:g})"


def plot_run(run: Path, out: Path) -> None:
    """Draw the reward, loss, NELBO and other RL curves of a run; write nothing without curves."""
    panels = {title: [line] for title, line in run_curves(run).items()}
    if panels:
        columns = min(len(panels), 3)
        figure = draw_curves(panels, columns=columns, panel_size=(4.4, 3.0), note=caption())
        save_figure(figure, out, title=f"curves of {run.resolve().name}")


def run_curves(run: Path) -> dict[str, Line]:
    """Return by title the reward, each training loss and NELBO before RL, and other RL metrics."""
    rows = list(read_lines(run / METRICS))
    losses = {
        f"loss, {stage}": line for stage, line in _curves(rows, "loss").items() if stage != "rl"
    }
    losses |= {
        f"held-out NELBO (nats per token), {stage}": line
        for stage, line in _curves(rows, "eval_nelbo").items()
    }
    rl = [(f"{title}, rl", _curves(rows, metric).get("rl")) for metric, title in _RL.items()]
    rl = [(title, line) for title, line in rl if line]
    return dict(rl[:1]) | losses | dict(rl[1:])


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


def on_common_steps(lines: Sequence[Line]) -> tuple[list[float], NDArray[np.float64]]:
    """Return the steps (N,) that all lines share, and the lines' values (R, N) at these steps."""
    curves = [dict(zip(line.steps, line.values, strict=True)) for line in lines]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return steps, np.array([[curve[step] for step in steps] for curve in curves], dtype=np.float64)


def mean_curves(arms: Mapping[str, Sequence[Line]]) -> list[Line]:
    """Return each arm's mean curve over its runs; arms without a common step are skipped.

    A mean of several runs has a 95% band: Student's t over the smoothed runs, clipped to [0, 1]
    unless weighted rewards exceed that range. Smoothing is linear, so the smoothed mean is its
    center."""
    means = []
    for label, lines in arms.items():
        steps, values = on_common_steps(lines)
        if not steps:
            continue
        band = None
        if len(lines) > 1:
            label = f"{label}, mean of {len(lines)} runs"
            smooth = np.array([time_weighted_ema(steps, row, SMOOTHING) for row in values])
            middle, half = smooth.mean(axis=0), t_half_width(smooth)
            low = middle - half if values.min() < 0 else (middle - half).clip(min=0)
            high = middle + half if values.max() > 1 else (middle + half).clip(max=1)
            band = (low.tolist(), high.tolist())
        means.append(Line(label, steps, values.mean(axis=0).tolist(), band))
    return means


def draw_means(title: str, means: Sequence[Line]) -> "Figure":
    """Draw mean curves (at least one) with their bands in one panel."""
    return draw_curves({title: means}, note=f"{caption()}; area: its 95% interval over runs")
