"""The figure of the method in README.md: WeFT's cold start, then RL.

Usage: python benchmarks/method_figure.py. Writes docs/method.svg. The entropies are illustrative;
rates and mask probabilities are computed from them."""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from weft_rl.diffusion.noise import mask_probability
from weft_rl.diffusion.rates import mean_rate

TOKENS = ("so", "x", "=", "7", ".")
ENTROPIES = (1.2, 0.5, 0.1, 1.9, 0.2)  # nats
MASKED = (True, False, False, True, False)  # the masks drawn in the fourth panel
TIME = 0.5
# readable at a width of 400 pixels: the letters are 2% of the width of 12 inches
_SMALL, _LARGE = 17, 20
_INK, _MASK, _ENTROPY, _RATE, _PAPER = "#1f2937", "#374151", "#d97706", "#2563eb", "#f3f4f6"
_CELL, _PANEL, _STEP = 1.0, 5.0, 6.9  # widths of a token, a panel, and a panel with its arrow


def probabilities() -> list[float]:
    """Probability that each token is masked at TIME, with WeFT's rates."""
    beta = torch.tensor([ENTROPIES]).sqrt()
    beta_ref = mean_rate(beta, torch.ones_like(beta, dtype=torch.bool))
    return mask_probability(torch.tensor([[TIME]]), beta, beta_ref)[0].tolist()


def tokens(ax: Axes, x: float, y: float, masked: tuple[bool, ...]) -> None:
    """A row of tokens; masked ones are dark."""
    for i, (token, dark) in enumerate(zip(TOKENS, masked, strict=True)):
        color = _MASK if dark else "white"
        style = "round,pad=0,rounding_size=0.15"
        box = FancyBboxPatch((x + i * _CELL + 0.05, y), 0.9, 0.9, style, fc=color, ec=_INK, lw=1.2)
        ax.add_patch(box)
        text, ink = ("?", "white") if dark else (token, _INK)
        ax.text(
            x + (i + 0.5) * _CELL, y + 0.42, text, size=_SMALL, color=ink, ha="center", va="center"
        )


def bars(ax: Axes, x: float, values: list[float], color: str, form: str) -> None:
    """A bar per token, with its value."""
    top = max(values)
    for i, value in enumerate(values):
        height = 1.5 * value / top
        ax.bar(x + (i + 0.5) * _CELL, height, 0.7, 5.0, color=color)
        label = format(value, form).lstrip("0")
        ax.text(x + (i + 0.5) * _CELL, 5.1 + height, label, size=_SMALL, color=_INK, ha="center")
    ax.plot([x, x + _PANEL], [5.0, 5.0], color=_INK, lw=1)


def arrow(ax: Axes, begin: tuple[float, float], end: tuple[float, float], bend: float = 0) -> None:
    """An arrow between two points."""
    style = f"arc3,rad={bend}"
    options = {"arrowstyle": "-|>", "mutation_scale": 22, "lw": 2, "color": _INK}
    ax.add_patch(FancyArrowPatch(begin, end, connectionstyle=style, **options))


def cold_start(ax: Axes) -> None:
    """Masked answer, entropies, mask rates, loss."""
    titles = ("1 mask answer", "2 entropies", "3 mask rates", "4 loss")
    for i, title in enumerate(titles):
        ax.text(
            i * _STEP + _PANEL / 2, 7.5, title, size=_LARGE, weight="bold", color=_INK, ha="center"
        )
        if i:
            arrow(ax, (i * _STEP - 1.65, 5.45), (i * _STEP - 0.25, 5.45))
    tokens(ax, 0, 5.0, (True,) * len(TOKENS))
    bars(ax, _STEP, [*ENTROPIES], _ENTROPY, ".1f")
    bars(ax, 2 * _STEP, probabilities(), _RATE, ".2f")
    tokens(ax, 3 * _STEP, 5.0, MASKED)
    notes = (
        "one forward pass",
        "H of each token",
        f"$t_i$ from $\\sqrt{{H_i}}$, t = {TIME}",
        r"$\sum\;-\log\,p\;/\;t_i$",
    )
    for i, note in enumerate(notes):
        ax.text(i * _STEP + _PANEL / 2, 4.0, note, size=_SMALL, color=_INK, ha="center")


def rl(ax: Axes) -> None:
    """Rollouts, rewards, policy update."""
    boxes = (
        ("5 rollouts", "diffusion sampler,\nG answers a prompt"),
        ("6 rewards", "right answer 1,\nwrong answer 0"),
        ("7 policy update", "clipped ratio x\nadvantage, KL"),
    )
    width, step = 7.6, 9.05
    for i, (title, note) in enumerate(boxes):
        x = i * step
        style = "round,pad=0,rounding_size=0.25"
        ax.add_patch(FancyBboxPatch((x, 0.3), width, 2.35, style, fc=_PAPER, ec=_INK, lw=1.2))
        ax.text(x + width / 2, 1.93, title, size=_LARGE, weight="bold", color=_INK, ha="center")
        ax.text(x + width / 2, 0.52, note, size=_SMALL, color=_INK, ha="center", linespacing=1.1)
        if i:
            arrow(ax, (x - 1.35, 1.5), (x - 0.1, 1.5))
    arrow(ax, (2 * step + width / 2, 0.25), (width / 2, 0.25), -0.05)


def main() -> None:
    """Write docs/method.svg."""
    mpl.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "method", "font.family": "DejaVu Sans"}
    figure = Figure(figsize=(12, 5), facecolor="white")
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    ax.set(xlim=(-0.3, 26.1), ylim=(-0.75, 9.2))
    ax.axis("off")
    for y, title in ((8.55, "Cold start: WeFT"), (2.95, "Then RL")):
        ax.text(0, y, title, size=_LARGE, color=_ENTROPY, weight="bold")
    cold_start(ax)
    rl(ax)
    path = Path(__file__).parents[1] / "docs" / "method.svg"
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
