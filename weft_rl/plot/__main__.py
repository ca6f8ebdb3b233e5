"""`plot`: a metric of one or more runs, from metrics.jsonl."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, argument, option, require, shown
from weft_rl.config.load import parse_options
from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.plot.curves import caption, read_curves
from weft_rl.plot.figures import draw_curves, save_figure
from weft_rl.runs.folder import CONFIG, METRICS, read_config
from weft_rl.runs.jsonl import read_lines
from weft_rl.runs.renamed import flattened

_KINDS = (".png", ".svg", ".html")
# Options that define the reward; runs that differ in them are not comparable.
_REWARD_OPTIONS = ("rewards", "rl.rollout.reward_weights")


@dataclass(frozen=True)
class PlotConfig(Block):
    """Options of `plot`."""

    runs: list[str] = field(metadata=about("run directories, a curve each", at_least=1))
    out: str = option("curves.png", "image to write: .png, .svg or .html")
    metric: str = option("reward", "metric of metrics.jsonl")
    smoothing: float = option(
        SMOOTHING, "weight of the bold moving average; 0: none", at_least=0, at_most=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"must end in {', '.join(_KINDS)}; try curves.png"
        require(Path(self.out).suffix in _KINDS, "out", self.out, rule)


def main(argv: Sequence[str]) -> int:
    """Plot the given runs, print the path and return the exit status."""
    description = "Curves of runs: raw values faint, their time-weighted average bold."
    config = parse_options(
        PlotConfig, argv, command="weft_rl.plot", description=description, positional="runs"
    )
    runs, out = [Path(name) for name in config.runs], Path(config.out)
    plot_runs(runs, out, config.metric, config.smoothing)
    sys.stdout.write(f"{out}\n")
    return 0


def plot_runs(
    runs: Sequence[Path], out: Path, metric: str = "reward", smoothing: float = SMOOTHING
) -> None:
    """Draw a metric of several runs into one image, with one curve per stage.

    A note below the curves lists runs without the metric. Raises UserError if a directory does not
    exist, no run has the metric, the runs are not comparable, or the image cannot be written."""
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run}: no such folder; name run directories")
    curves = {run: read_curves(run, metric) for run in runs}
    plotted = [run for run, stages in curves.items() if stages]
    if not plotted:
        raise UserError(_no_metric([*curves], metric))
    _check_comparable(plotted, metric)
    names = _names([*curves])
    lines = [
        replace(line, label=names[run] if len(stages) == 1 else f"{names[run]} ({stage})")
        for run, stages in curves.items()
        for stage, line in stages.items()
    ]
    note = caption(smoothing)
    without = ", ".join(names[run] for run, stages in curves.items() if not stages)
    note += f"\nno {metric} in {shown(without)}" if without else ""
    panel = f"{metric}, {lines[0].label}" if len(lines) == 1 else metric
    figure = draw_curves({panel: lines}, smoothing, note=note)
    save_figure(figure, out, title=f"{metric} of {', '.join(names.values())}")


def _names(runs: Sequence[Path]) -> dict[Path, str]:
    """Return the directory names, or paths below the common parent if names collide."""
    full = {run: run.resolve() for run in runs}
    names = {run: path.name for run, path in full.items()}
    if len(set(names.values())) == len(names):
        return names
    parent = os.path.commonpath(full.values())
    return {run: str(path.relative_to(parent)) for run, path in full.items()}


def _check_comparable(runs: Sequence[Path], metric: str) -> None:
    """Raise UserError if the runs' task or reward options differ; ignore missing options."""
    keys = ("task", *_REWARD_OPTIONS) if metric.startswith("reward") else ("task",)
    first: dict[str, tuple[Path, str]] = {}
    for run in runs:
        with parsing(run / CONFIG):
            options = [(k, argument(v)) for k, v in flattened(read_config(run)) if k in keys]
        for key, value in options:
            other, expected = first.setdefault(key, (run, value))
            if value != expected:
                raise UserError(
                    f"{run}: {key}={shown(value)}, but {other} has {key}={shown(expected)}: their "
                    f"{metric} is not comparable; plot them separately"
                )


def _no_metric(runs: Sequence[Path], metric: str) -> str:
    rows = (row for run in runs for row in read_lines(run / METRICS))
    logged = {key for row in rows for key, value in row.items() if is_number(value)}
    logged -= {"step", "time_s"}
    fix = f"try metric= one of {', '.join(sorted(logged))}" if logged else "name a trained run"
    return f"{', '.join(map(str, runs))}: no {metric} in {METRICS}; {fix}"


if __name__ == "__main__":
    sys.exit(execute("weft_rl.plot", main, sys.argv[1:]))
