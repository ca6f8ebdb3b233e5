"""The paper's figures from run folders: token entropies, reward curves, training time."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from weft_rl.plot import figures
from weft_rl.plot.curves import draw_means, mean_curves, read_curves, save_figure
from weft_rl.plot.figures import Line, Point
from weft_rl.report.comparison_tables import label
from weft_rl.reproduce.paper_numbers import TIME_RATIO
from weft_rl.reproduce.required_runs import PaperRun
from weft_rl.runs.atomic_io import write_text
from weft_rl.runs.folder import METRICS
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import t_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The paper draws the 100 most frequent tokens; of them the highest and lowest mean entropies.
_FREQUENT, _SHOWN = 100, 20
_ENDINGS = (".png", ".svg", ".html")


def token_figure(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Figure 2: the frequent tokens of highest and of lowest mean entropy, and all of them as CSV.

    Means are over the runs that have them. Nothing without a run."""
    totals: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for unit, run in runs.items():
        path = run / f"token_entropy-{unit.arm}.csv"
        if not path.exists():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                counts[row["token"]] = counts.get(row["token"], 0) + int(row["count"])
                totals.setdefault(row["token"], []).append(float(row["mean_entropy"]))
    frequent = sorted(counts, key=lambda token: (-counts[token], token))[:_FREQUENT]
    if not frequent:
        return []
    means = {token: fmean(totals[token]) for token in frequent}
    ordered = sorted(frequent, key=lambda token: -means[token])
    shown = min(_SHOWN, len(ordered) // 2)
    panels = [
        ("highest mean entropy (nats)", [(_visible(t), means[t]) for t in ordered[:shown]]),
        ("lowest mean entropy (nats)", [(_visible(t), means[t]) for t in ordered[::-1][:shown]]),
    ]
    figure = figures.draw_ranks(panels)
    rows = [("token", "count", "mean_entropy")]
    rows += [(token, str(counts[token]), f"{means[token]:.6f}") for token in ordered]
    return [*_save(figure, folder, "figure2"), _table(folder, "figure2", rows)]


def _visible(token: str) -> str:
    """A token as a label: what is not seen on paper is spelt."""
    return token if token.strip() and token.isprintable() else ascii(token)


def curves_figure(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Figure 3: reward over RL steps after each cold start, with the band over seeds."""
    arms: dict[str, list[Line]] = {}
    for unit, run in runs.items():
        line = read_curves(run, "reward").get("rl")
        if line:
            arms.setdefault(f"{label(unit.arm)} then RL", []).append(line)
    means = mean_curves(arms)
    if not means:
        return []
    figure = draw_means("reward in RL", means)
    rows = [("arm", "run", "step", "reward")]
    rows += [
        (name, str(number), f"{step:g}", f"{value:.6f}")
        for name, lines in arms.items()
        for number, line in enumerate(lines)
        for step, value in zip(line.steps, line.values, strict=True)
    ]
    return [*_save(figure, folder, "figure3"), _table(folder, "figure3", rows)]


def time_figure(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Figure 4: WeFT's training time over SFT's by seed, their mean with its interval."""
    times = {
        (unit.arm, unit.seed): max(found)
        for unit, run in runs.items()
        if (
            found := [
                row["time_s"] for row in read_lines(run / METRICS) if row.get("stage") == unit.arm
            ]
        )
    }
    seeds = [seed for arm, seed in times if arm == "weft" and ("sft", seed) in times]
    if not seeds:
        return []
    ratios = [times["weft", seed] / times["sft", seed] for seed in seeds]
    points = [Point(f"seed {seed}", ratio) for seed, ratio in zip(seeds, ratios, strict=True)]
    if len(ratios) > 1:
        mean = t_interval(ratios)
        points.append(Point("mean, 95 % interval", mean.mean, (mean.low, mean.high)))
    points.append(Point("the paper, LLaDA-8B", TIME_RATIO))
    figure = figures.draw_points(points, "WeFT's training time over SFT's", reference=1.0)
    rows = [("seed", "sft_s", "weft_s", "ratio")]
    rows += [
        (str(s), f"{times['sft', s]:.3f}", f"{times['weft', s]:.3f}", f"{r:.4f}")
        for s, r in zip(seeds, ratios, strict=True)
    ]
    return [*_save(figure, folder, "figure4"), _table(folder, "figure4", rows)]


def _save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}{ending}" for ending in _ENDINGS]
    for path in paths:
        save_figure(figure, path, title=name)
    return paths


def _table(folder: Path, name: str, rows: Sequence[Sequence[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(folder / f"{name}.csv", text.getvalue())
    return folder / f"{name}.csv"
