"""Curves and bars drawn with matplotlib, as image files or inline SVG.

matplotlib is imported inside the functions because its import slows down --help. The code does not
use pyplot's global state. Equal data gives equal bytes."""

import io
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from weft_rl.config.fields import shown
from weft_rl.ema import time_weighted_ema

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Four colors of the Okabe-Ito palette; two replace its light ones. All are safe for color-blind
# readers, with a contrast of 3 on white and dark pages. Above 6 lines, dashes distinguish them;
# above 24, markers do.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#DD0044", "#AA33FF")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("", "o", "s")
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
_SVG_METADATA = ("Date", "Creator", "Format", "Type")


@dataclass(frozen=True)
class Line:
    """A curve: increasing steps (N,), finite values (N,), N > 0; band: bounds (N,) of its area."""

    label: str
    steps: list[float]
    values: list[float]
    band: tuple[list[float], list[float]] | None = None


@dataclass(frozen=True)
class Panel:
    """The curves of one metric on shared axes."""

    title: str
    lines: list[Line]


@dataclass(frozen=True)
class Bar:
    """A score with its interval, in percent. Baselines have a different style."""

    label: str
    score: float
    low: float
    high: float
    is_baseline: bool = False


@dataclass(frozen=True)
class Point:
    """A labeled value with an optional interval."""

    label: str
    value: float
    interval: tuple[float, float] | None = None


@contextmanager
def _style(salt: str = "weft-rl") -> Generator[None, None, None]:
    """Use matplotlib's defaults and _STYLE, not the user's matplotlibrc. salt: seed of SVG ids."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": salt})
        yield


def draw_curves(
    panels: Sequence[Panel],
    smoothing: float,
    *,
    columns: int,
    panel_size: tuple[float, float],
    note: str = "",
) -> "Figure":
    """Draw each panel's curves: raw values faint, their time_weighted_ema(smoothing) bold.

    panel_size: width and height in inches. note: text below all panels."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    lines = max((len(p.lines) // _legend_columns(p) for p in panels if len(p.lines) > 1), default=0)
    # the panel height fits a legend of two lines; add more for longer legends
    size = (panel_size[0] * columns, panel_size[1] * rows + 0.22 * max(0, lines - 2))
    with _style():
        figure = Figure(figsize=size, layout="constrained")
        for place, panel in enumerate(panels, 1):
            _draw_panel(figure.add_subplot(rows, columns, place), panel, smoothing)
        if note:
            figure.supxlabel(note, fontsize=8, color=_GRAY)
    return figure


def _draw_panel(axes: "Axes", panel: Panel, smoothing: float) -> None:
    from matplotlib.ticker import MaxNLocator

    bold = []
    for i, line in enumerate(panel.lines):
        color = _COLORS[i % len(_COLORS)]
        dashes = _DASHES[i // len(_COLORS) % len(_DASHES)]
        marker = _MARKERS[i // len(_COLORS) // len(_DASHES) % len(_MARKERS)]
        smoothed = time_weighted_ema(line.steps, line.values, smoothing)
        dot = "." if len(line.steps) <= _MAX_DOTS else ""
        axes.plot(line.steps, line.values, color=color, alpha=0.6, linewidth=1, marker=dot)
        if line.band is not None:
            axes.fill_between(line.steps, *line.band, color=color, alpha=0.15, linewidth=0)
        bold += axes.plot(
            line.steps,
            smoothed,
            color=color,
            linewidth=2,
            linestyle=dashes,
            marker=marker,
            markersize=5,
            markevery=0.1,  # fraction of the axes diagonal
        )
    axes.set_title(panel.title)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)  # 31.02 instead of an offset +31
    axes.grid(axis="y")
    if len(panel.lines) > 1:
        labels = [shown(line.label) for line in panel.lines]
        columns = _legend_columns(panel)
        axes.figure.legend(bold, labels, loc="outside upper left", ncols=columns)


def _legend_columns(panel: Panel) -> int:
    """Number of columns that fit into seven inches."""
    return max(1, 70 // (max(len(shown(line.label)) for line in panel.lines) + 6))


def draw_bars(bars: Sequence[Bar], axis: str) -> "Figure":
    """Draw horizontal bars with error bars on a scale from 0 to 100%, the first at the top."""
    from matplotlib.figure import Figure

    with _style():
        # inches: 0.42 per bar, 0.75 for the axis
        figure = Figure(figsize=(4.8, 0.42 * len(bars) + 0.75), layout="constrained")
        axes = figure.add_subplot()
        for place, bar in enumerate(bars):
            color = _GRAY if bar.is_baseline else _COLORS[0]
            # hatching distinguishes baselines without color
            hatch = "////" if bar.is_baseline else ""
            alpha = 0.45 if bar.is_baseline else 0.85
            axes.barh(place, bar.score, 0.62, color=color, alpha=alpha, hatch=hatch)
            # rounding may put a score just outside its interval
            sides = [[max(bar.score - bar.low, 0)], [max(bar.high - bar.score, 0)]]
            axes.errorbar(bar.score, place, xerr=sides, color=_INK, capsize=4, linewidth=1.4)
            axes.annotate(
                f"{bar.score:.1f}",
                (max(bar.high, bar.score), place),
                xytext=(6, 0),
                textcoords="offset points",
                verticalalignment="center",
            )
        axes.set_yticks(range(len(bars)), [shown(bar.label) for bar in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, 109)  # room for the label of a full bar
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel(axis)
        axes.grid(axis="x")
    return figure


def draw_points(points: Sequence[Point], axis: str, *, reference: float) -> "Figure":
    """Draw points with intervals in rows, and a vertical line at the reference value."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(5.6, 0.4 * len(points) + 0.9), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(reference, color=_GRAY, linewidth=1)
        for place, point in enumerate(points):
            axes.plot(point.value, place, "o", color=_COLORS[0])
            if point.interval is not None:
                axes.plot(point.interval, (place, place), color=_COLORS[0], linewidth=2)
            axes.annotate(
                f"{point.value:.2f}",
                (point.value, place),
                xytext=(0, 6),
                textcoords="offset points",
                horizontalalignment="center",
            )
        axes.set_yticks(range(len(points)), [shown(point.label) for point in points])
        axes.set_ylim(len(points) - 0.5, -0.7)  # the first at the top, with room for its label
        axes.set_xlabel(axis)
        axes.grid(axis="x")
    return figure


def draw_ranks(panels: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> "Figure":
    """Draw panels of horizontal bars side by side, on one scale."""
    from matplotlib.figure import Figure

    count = max(len(rows) for _, rows in panels)
    highest = max((value for _, rows in panels for _, value in rows), default=1.0)
    with _style():
        size = (4.2 * len(panels), 0.26 * count + 1)
        figure = Figure(figsize=size, layout="constrained")
        for place, (title, rows) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            color = _COLORS[place % len(_COLORS)]
            axes.barh(range(len(rows)), [value for _, value in rows], color=color, alpha=0.85)
            axes.set_yticks(range(len(rows)), [shown(name) for name, _ in rows])
            axes.set_ylim(count - 0.4, -0.6)
            axes.set_xlim(0, 1.05 * highest or 1.0)
            axes.set_title(title)
            axes.grid(axis="x")
    return figure


def render(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    """Render the figure as PNG or SVG bytes; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with _style():
        # dates and versions would change the bytes
        metadata = dict.fromkeys(("Software",) if kind == "png" else _SVG_METADATA)
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def figure_svg(figure: "Figure", label: str) -> str:
    """Return an inline SVG element. label: description for screen readers, unique on the page."""
    buffer = io.BytesIO()
    with _style(salt=label):  # figures on one page need distinct ids
        metadata = dict.fromkeys(_SVG_METADATA)
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # these ids repeat across figures and are unused
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    (box,) = re.findall(r'viewBox="[^"]*"', text)
    opening = f'<svg {box} role="img" aria-label="{escape(label)}">'
    return re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1)
