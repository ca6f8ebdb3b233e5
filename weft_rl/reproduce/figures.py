"""The paper's figures from run directories: token entropies, rewards, training time."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from weft_rl.plot.curves import draw_means, mean_curves, read_curves
from weft_rl.plot.figures import Bar, Line, draw_bars, save_figure
from weft_rl.report.comparison import label
from weft_rl.reproduce.paper import TIME_RATIO, PaperRun
from weft_rl.reproduce.tables import csv_text
from weft_rl.runs.atomic_io import write_text
from weft_rl.runs.folder import METRICS
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import t_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The paper shows the highest and lowest mean entropies of the 100 most frequent tokens.
_FREQUENT, _DRAWN = 100, 20


def token_figure(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Draw figure 2: frequent tokens of highest and lowest mean entropy; write all to CSV."""
    # by id and text: two tokens may look alike, as a line break and \n
    entropies: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    counts: Counter[tuple[str, str]] = Counter()
    for unit, run in runs.items():
        path = run / f"token_entropy-{unit.arm}.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    token = (row["token"], row["id"])
                    counts[token] += int(row["count"])
                    entropies[token].append(float(row["mean_entropy"]))
    if not counts:
        return []
    frequent = sorted(counts, key=lambda token: (-counts[token], token))[:_FREQUENT]
    means = {token: fmean(entropies[token]) for token in frequent}
    ordered = sorted(frequent, key=lambda token: -means[token])
    drawn = min(_DRAWN, len(ordered) // 2)
    panels = {
        f"{name} mean entropy (nats)": [Bar(_visible(token[0]), means[token]) for token in tokens]
        for name, tokens in (("highest", ordered[:drawn]), ("lowest", ordered[::-1][:drawn]))
    }
    rows = [(token[0], str(counts[token]), f"{means[token]:.6f}") for token in ordered]
    header = ("token", "count", "mean_entropy")
    return _save(draw_bars(panels, percent=False), [header, *rows], folder, "figure2")


def _visible(token: str) -> str:
    return token if token.strip() and token.isprintable() else ascii(token)


def curves_figure(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Draw figure 3: reward over RL steps after each cold start, with a band over seeds."""
    arms: dict[str, list[Line]] = {}
    for unit, run in runs.items():
        line = read_curves(run, "reward").get("rl")
        if line:
            arms.setdefault(f"{label(unit.arm)} then RL", []).append(line)
    means = mean_curves(arms)
    if not means:
        return []
    rows = [
        (name, str(number), f"{step:g}", f"{value:.6f}")
        for name, lines in arms.items()
        for number, line in enumerate(lines)
        for step, value in zip(line.steps, line.values, strict=True)
    ]
    figure = draw_means("reward in RL", means)
    return _save(figure, [("arm", "run", "step", "reward"), *rows], folder, "figure3")


def time_figure(folder: Path, runs: Mapping[PaperRun, Path]) -> list[Path]:
    """Draw figure 4: WeFT training time over SFT's by seed, with the mean and its interval."""
    times: dict[tuple[str, int], float] = {}
    for unit, run in runs.items():
        rows = [row for row in read_lines(run / METRICS) if row.get("stage") == unit.arm]
        if rows:
            times[unit.arm, unit.seed] = max(row["time_s"] for row in rows)
    seeds = [seed for arm, seed in times if arm == "weft" and ("sft", seed) in times]
    if not seeds:
        return []
    ratios = {seed: times["weft", seed] / times["sft", seed] for seed in seeds}
    bars = [Bar(f"seed {seed}", ratio) for seed, ratio in ratios.items()]
    if len(ratios) > 1:
        mean = t_interval([*ratios.values()])
        bars.append(Bar("mean, 95% interval", mean.mean, (mean.low, mean.high)))
    bars.append(Bar("the paper, LLaDA-8B", TIME_RATIO, is_baseline=True))
    panels = {"WeFT's training time over SFT's": bars}
    figure = draw_bars(panels, percent=False, reference=1.0)
    table = [
        (str(seed), f"{times['sft', seed]:.3f}", f"{times['weft', seed]:.3f}", f"{ratio:.4f}")
        for seed, ratio in ratios.items()
    ]
    return _save(figure, [("seed", "sft_s", "weft_s", "ratio"), *table], folder, "figure4")


def _save(figure: "Figure", rows: Sequence[Sequence[str]], folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}{ending}" for ending in (".png", ".svg", ".html", ".csv")]
    for path in paths[:-1]:
        save_figure(figure, path, title=name)
    write_text(paths[-1], csv_text(rows))
    return paths
