"""Drawing curves and bars with matplotlib's objects, as image files or as SVG inside a page.

matplotlib is imported inside the functions: it takes most of a second, and a help text must not
wait for it. No global state of pyplot is touched, and equal data gives equal bytes."""

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

# Four of Okabe and Ito's palette, and two instead of its light ones, which a white page swallows:
# a contrast of 3 on a white and on a dark page, and told apart by colour-blind readers. Beyond six
# lines dashes tell them apart, beyond 24 markers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#DD0044", "#AA33FF")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("", "o", "s")
# Text and axes; in a page this very value becomes the page's own text colour.
_INK, _GREY = "#1b1b1f", "#8a8a8a"
# With more points than this, dots on the raw curve run together.
_DOTTED = 60
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a folder may be called a$b
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
    "grid.color": _GREY,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text: smaller, and a screen reader can read it
}
_SVG_METADATA = ("Date", "Creator", "Format", "Type")


@dataclass(frozen=True)
class Line:
    """One curve: steps (N,) increasing, values (N,) finite, N > 0.

    band: lower and upper bounds (N,) around the smoothed curve, drawn as a faint area."""

    label: str
    steps: list[float]
    values: list[float]
    band: tuple[list[float], list[float]] | None = None


@dataclass(frozen=True)
class Panel:
    """The curves of one metric, sharing their axes."""

    title: str
    lines: list[Line]


@dataclass(frozen=True)
class Bar:
    """A score with its interval, in percent; a baseline is drawn apart from the stages."""

    label: str
    score: float
    low: float
    high: float
    is_baseline: bool = False


@dataclass(frozen=True)
class Point:
    """A number with a name, and its interval where it has one."""

    label: str
    value: float
    interval: tuple[float, float] | None = None


@contextmanager
def _style(salt: str = "weft-rl") -> Generator[None, None, None]:
    """matplotlib's defaults and ours, whatever the user's matplotlibrc says.

    salt: what the ids in an SVG are made from; without one they would be random."""
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
    """Each panel's curves: the raw values faint, their time-weighted EMA bold.

    smoothing in [0, 1] as time_weighted_ema takes it; panel_size: width and height in inches;
    note: a line below all panels."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    lines = max((len(p.lines) // _legend_columns(p) for p in panels if len(p.lines) > 1), default=0)
    # a legend of more lines than two takes their height beside the panels', not of it
    size = (panel_size[0] * columns, panel_size[1] * rows + 0.22 * max(0, lines - 2))
    with _style():
        figure = Figure(figsize=size, layout="constrained")
        for place, panel in enumerate(panels, 1):
            _draw_panel(figure.add_subplot(rows, columns, place), panel, smoothing)
        if note:
            figure.supxlabel(note, fontsize=8, color=_GREY)
    return figure


def _draw_panel(axes: "Axes", panel: Panel, smoothing: float) -> None:
    from matplotlib.ticker import MaxNLocator

    bold = []
    for i, line in enumerate(panel.lines):
        colour = _COLOURS[i % len(_COLOURS)]
        dashes = _DASHES[i // len(_COLOURS) % len(_DASHES)]
        marker = _MARKERS[i // len(_COLOURS) // len(_DASHES) % len(_MARKERS)]
        smoothed = time_weighted_ema(line.steps, line.values, smoothing)
        dot = "." if len(line.steps) <= _DOTTED else ""
        axes.plot(line.steps, line.values, color=colour, alpha=0.6, linewidth=1, marker=dot)
        if line.band is not None:
            axes.fill_between(line.steps, *line.band, color=colour, alpha=0.15, linewidth=0)
        bold += axes.plot(
            line.steps,
            smoothed,
            color=colour,
            linewidth=2,
            linestyle=dashes,
            marker=marker,
            markersize=5,
            markevery=0.1,  # of the diagonal: a marker on each of many points would be a thick line
        )
    axes.set_title(panel.title)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)  # 31.02, not 2e-2 beside a +31 in a corner
    axes.grid(axis="y")
    if len(panel.lines) > 1:
        labels = [shown(line.label) for line in panel.lines]
        columns = _legend_columns(panel)
        axes.figure.legend(bold, labels, loc="outside upper left", ncols=columns)


def _legend_columns(panel: Panel) -> int:
    """As many as fit below seven inches."""
    return max(1, 70 // (max(len(shown(line.label)) for line in panel.lines) + 6))


def draw_bars(bars: Sequence[Bar], axis: str) -> "Figure":
    """Horizontal bars with error bars from 0 to 100 percent, the first one on top."""
    from matplotlib.figure import Figure

    with _style():
        # half an inch a bar keeps the labels apart; one inch is for the axis
        figure = Figure(figsize=(4.8, 0.42 * len(bars) + 0.75), layout="constrained")
        axes = figure.add_subplot()
        for place, bar in enumerate(bars):
            colour = _GREY if bar.is_baseline else _COLOURS[0]
            # a hatch as well, for those who do not see the colour
            hatch = "////" if bar.is_baseline else ""
            alpha = 0.45 if bar.is_baseline else 0.85
            axes.barh(place, bar.score, 0.62, color=colour, alpha=alpha, hatch=hatch)
            # rounding may put a score a hair outside its own interval
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
        axes.set_xlim(0, 109)  # room for the number behind a full bar
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel(axis)
        axes.grid(axis="x")
    return figure


def draw_points(points: Sequence[Point], axis: str, *, reference: float) -> "Figure":
    """Points one below the other, with their intervals, and a line at the reference value."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(5.6, 0.4 * len(points) + 0.9), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(reference, color=_GREY, linewidth=1)
        for place, point in enumerate(points):
            axes.plot(point.value, place, "o", color=_COLOURS[0])
            if point.interval is not None:
                axes.plot(point.interval, (place, place), color=_COLOURS[0], linewidth=2)
            axes.annotate(
                f"{point.value:.2f}",
                (point.value, place),
                xytext=(0, 6),
                textcoords="offset points",
                horizontalalignment="center",
            )
        axes.set_yticks(range(len(points)), [shown(point.label) for point in points])
        axes.set_ylim(len(points) - 0.5, -0.7)  # the first one on top, room for its number
        axes.set_xlabel(axis)
        axes.grid(axis="x")
    return figure


def draw_ranks(panels: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> "Figure":
    """Side by side, each panel's named values as horizontal bars on one scale, in their order."""
    from matplotlib.figure import Figure

    count = max(len(rows) for _, rows in panels)
    highest = max((value for _, rows in panels for _, value in rows), default=1.0)
    with _style():
        size = (4.2 * len(panels), 0.26 * count + 1)
        figure = Figure(figsize=size, layout="constrained")
        for place, (title, rows) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            colour = _COLOURS[place % len(_COLOURS)]
            axes.barh(range(len(rows)), [value for _, value in rows], color=colour, alpha=0.85)
            axes.set_yticks(range(len(rows)), [shown(name) for name, _ in rows])
            axes.set_ylim(count - 0.4, -0.6)
            axes.set_xlim(0, 1.05 * highest or 1.0)
            axes.set_title(title)
            axes.grid(axis="x")
    return figure


def render(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    """The figure as the bytes of an image file, the same ones whenever it is drawn."""
    buffer = io.BytesIO()
    with _style():
        # without the dates and versions that matplotlib writes into files
        metadata = dict.fromkeys(("Software",) if kind == "png" else _SVG_METADATA)
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def figure_svg(figure: "Figure", label: str) -> str:
    """The figure as an SVG element for a page: it takes the page's width and text colour.

    label says for a screen reader what is drawn; no two figures of a page may have the same."""
    buffer = io.BytesIO()
    with _style(salt=label):  # figures of a page must not share ids
        metadata = dict.fromkeys(_SVG_METADATA)
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # these ids are the same in every figure, and nothing refers to them
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    (box,) = re.findall(r'viewBox="[^"]*"', text)
    opening = f'<svg {box} role="img" aria-label="{escape(label)}">'
    return re.sub(r"<svg [^>]*>", lambda _: opening, text, count=1)
