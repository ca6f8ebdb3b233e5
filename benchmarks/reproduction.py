"""Write docs/reproduction.md from a finished `reproduce all`: tables, figures, environment.

Usage: python benchmarks/reproduction.py FOLDER SECONDS. FOLDER: the command's output; SECONDS:
its duration."""

import csv
import os
import platform
import shutil
import sys
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
HEAD = """# The paper's tables and figures at the tiny scale

`python -m weft_rl.reproduce all`, three seeds, one run at a time beside other work, from an empty
cache: {minutes:.0f} minutes on {cpus} x {machine}, Python {python}, torch {torch}, revision
{revision}. The comparisons are the paper's; the tiny model, its data and its puzzles are not.
Scores have 95% intervals.

"""


def main(folder: Path, seconds: float) -> None:
    """Write docs/reproduction.md and the figures beside it."""
    config = OmegaConf.load(next(folder.glob("weft-seed0-*")) / "config.yaml")
    page = HEAD.format(
        minutes=seconds / 60,
        cpus=os.cpu_count(),
        machine=platform.processor() or platform.machine(),
        python=config.versions.python,
        torch=config.versions.torch,
        revision=config.revision,
    )
    for number in range(1, 6):
        page += (folder / f"table{number}.md").read_text(encoding="utf-8") + "\n"
    with (folder / "figure4.csv").open(encoding="utf-8", newline="") as file:
        ratios = ", ".join(row["ratio"] for row in csv.DictReader(file))
    titles = {2: "Token entropies", 3: "Rewards", 4: f"WeFT's training time over SFT's: {ratios}"}
    for number, title in titles.items():
        shutil.copy(folder / f"figure{number}.png", ROOT / "docs" / f"figure{number}.png")
        page += f"Figure {number}. {title}.\n\n![{title}](figure{number}.png)\n\n"
    (ROOT / "docs" / "reproduction.md").write_text(page.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/reproduction.py FOLDER SECONDS")
    main(Path(sys.argv[1]), float(sys.argv[2]))
