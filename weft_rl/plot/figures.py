"""Curves and bars drawn with matplotlib, as image files or inline SVG.

matplotlib is imported inside the functions because its import slows down --help. The code does not
use pyplot's global state. Equal data gives equal bytes."""

import io
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft_rl.cli import writing
from weft_rl.config.fields import shown
from weft_rl.ema import SMOOTHING, time_weighted_ema
from weft_rl.runs.atomic_io import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Four colors of the Okabe-Ito palette; two replace its light ones. All are safe for color-blind
# readers, with a contrast of 3 on white and dark pages. Above 6 lines, dashes distinguish them;
# above 24, markers do.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#DD0044", "#AA33FF")
_LINE_STYLES = [
    (color, dashes, marker)
    for marker in ("", "o", "s")
    for dashes in ("-", "--", ":", "-.")
    for color in _COLORS
]
# Text and axes; inline SVG replaces _INK with the page's text color.
_INK, _GRAY = "#1b1b1f", "#8a8a8a"
# Above this number of points, the dots of a raw curve overlap.
_MAX_DOTS = 60
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a directory name may contain $
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": _GRAY,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # smaller than paths, and screen readers can read it
}
# Dates and versions would change the bytes.
_METADATA = {"png": ("Software",), "svg": ("Date", "Creator", "Format", "Type")}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 1rem auto; max-width: 60rem; padding: 0 1rem; font-family: system-ui, sans-serif; }}
svg {{ width: 100%; height: auto; }}
</style>
<h1>{title}</h1>
{svg}
"""


@dataclass(frozen=True)
class Line:
    """A curve: increasing steps (N,), finite values (N,), N > 0; band: bounds (N,) of its area."""

    label: str
    steps: list[float]
    values: list[float]
    band: tuple[list[float], list[float]] | None = None


@dataclass(frozen=True)
class Bar:
    """A value with an optional interval. Baselines have a different style."""

    label: str
    value: float
    interval: Sequence[float] | None = None  # low, high
    is_baseline: bool = False


@contextmanager
def _style(salt: str = "weft-rl") -> Generator[None, None, None]:
    """Use matplotlib's defaults and _STYLE, not the user's matplotlibrc. salt: seed of SVG ids."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": salt})
        yield


def draw_curves(
    panels: Mapping[str, Sequence[Line]],
    smoothing: float = SMOOTHING,
    *,
    columns: int = 1,
    panel_size: tuple[float, float] = (7.2, 4.4),
    note: str = "",
) -> "Figure":
    """Draw panels of curves by title: raw values faint, their time_weighted_ema(smoothing) bold.

    panel_size: width and height in inches. note: text below all panels."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    legends = [len(lines) // _legend_columns(lines) for lines in panels.values() if len(lines) > 1]
    # the panel height fits a legend of two lines; add more for longer legends
    size = (panel_size[0] * columns, panel_size[1] * rows + 0.22 * (max([2, *legends]) - 2))
    with _style():
        figure = Figure(figsize=size, layout="constrained")
        for place, (title, lines) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, place, title=title, xlabel="step")
            _draw_lines(axes, lines, smoothing)
        if note:
            figure.supxlabel(note, fontsize=8, color=_GRAY)
    return figure


def _draw_lines(axes: "Axes", lines: Sequence[Line], smoothing: float) -> None:
    from matplotlib.ticker import MaxNLocator

    bold = []
    for i, line in enumerate(lines):
        color, dashes, marker = _LINE_STYLES[i % len(_LINE_STYLES)]
        smoothed = time_weighted_ema(line.steps, line.values, smoothing)
        dot = "." if len(line.steps) <= _MAX_DOTS else ""
        axes.plot(line.steps, line.values, color=color, alpha=0.6, linewidth=1, marker=dot)
        if line.band is not None:
            axes.fill_between(line.steps, *line.band, color=color, alpha=0.15, linewidth=0)
        look: dict[str, Any] = {"linestyle": dashes, "marker": marker, "markersize": 5}
        # markevery: fraction of the axes diagonal
        bold += axes.plot(line.steps, smoothed, color=color, linewidth=2, markevery=0.1, **look)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)  # 31.02 instead of an offset +31
    axes.grid(axis="y")
    if len(lines) > 1:
        labels = [shown(line.label) for line in lines]
        columns = _legend_columns(lines)
        axes.figure.legend(bold, labels, loc="outside upper left", ncols=columns)


def _legend_columns(lines: Sequence[Line]) -> int:
    """Number of columns that fit into seven inches."""
    return max(1, 70 // (max(len(shown(line.label)) for line in lines) + 6))


def draw_bars(
    panels: Mapping[str, Sequence[Bar]], *, percent: bool = True, reference: float | None = None
) -> "Figure":
    """Draw panels of horizontal bars side by side, by the label of their axis; first bar on top.

    percent: use a scale from 0 to 100. reference: value to mark with a line."""
    from matplotlib.figure import Figure

    rows = max(map(len, panels.values()))
    with _style():
        # inches: 0.42 per bar, 0.75 for the axis
        size = (4.8 * len(panels), 0.42 * rows + 0.75)
        figure = Figure(figsize=size, layout="constrained")
        columns = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
        for axes, (label, bars) in zip(columns, panels.items(), strict=True):
            for place, bar in enumerate(bars):
                _draw_bar(axes, place, bar, "%.1f" if percent else "%.2f")
            axes.set_yticks(range(len(bars)), [shown(bar.label) for bar in bars])
            axes.invert_yaxis()
            if percent:
                axes.set_xlim(0, 109)  # room for the label of a full bar
                axes.set_xticks(range(0, 101, 20))
            else:
                axes.margins(x=0.15)
            if reference is not None:
                axes.axvline(reference, color=_GRAY, linewidth=1)
            axes.set_xlabel(label)
            axes.grid(axis="x")
    return figure


def _draw_bar(axes: "Axes", place: int, bar: Bar, label_format: str) -> None:
    look: dict[str, Any] = {"color": _COLORS[0], "alpha": 0.85, "hatch": ""}
    if bar.is_baseline:
        look = {"color": _GRAY, "alpha": 0.45, "hatch": "////"}  # recognizable without color
    if bar.interval is not None:
        low, high = bar.interval
        # rounding may put a score just outside its interval
        look["xerr"] = [[max(bar.value - low, 0)], [max(high - bar.value, 0)]]
        look["error_kw"] = {"ecolor": _INK, "capsize": 4, "elinewidth": 1.4}
    drawn = axes.barh(place, bar.value, 0.62, **look)
    axes.bar_label(drawn, fmt=label_format, padding=6)


def _saved(figure: "Figure", kind: str, salt: str = "weft-rl", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with _style(salt):
        metadata = dict.fromkeys(_METADATA[kind])
        figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def figure_svg(figure: "Figure", label: str) -> str:
    """Return an inline SVG element. label: description for screen readers, unique on the page."""
    # figures on one page need distinct ids
    text = _saved(figure, "svg", salt=label, transparent=True).decode()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # these ids repeat across figures and are unused
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    (box,) = re.findall(r'viewBox="[^"]*"', text)
    opening = f'<svg {box} role="img" aria-label="{escape(label)}">'
    return re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1)


def save_figure(figure: "Figure", out: Path, title: str) -> None:
    """Write an image atomically as .png, .svg or .html; equal figures give equal bytes.

    Raises UserError if that fails."""
    kind = out.suffix.removeprefix(".")
    if kind in _METADATA:
        image = _saved(figure, kind)
    else:
        page = _PAGE.format(title=escape(title), svg=figure_svg(figure, title))
        image = page.encode("utf-8", "replace")
    with writing(out):
        write_bytes(out, image)
