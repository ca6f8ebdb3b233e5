"""docs/experiments.md from a finished comparison: `make experiments` runs both.

Usage: python benchmarks/experiments.py COMPARISON_FOLDER. The tables are the comparison's own; this
adds how they were made, and keeps its numbers with the machine beside them."""

import json
import os
import platform
import shutil
import sys
from pathlib import Path

from omegaconf import OmegaConf
from pages import filled

ROOT = Path(__file__).parents[1]
HEAD = """# Experiments

How well the tiny world learns, over seeds: `make experiments` regenerates this page. Puzzles have
eight empty cells and one solution; the held-out ones come from three of the twelve orbits under
relabelling of digits, none of whose grids is ever trained on. The same {n} puzzles and one base
model serve every run. Most answers in the base's pretraining have no tags, and an answer without
tags is none: what the base scores is how often it writes them.

Made on {cpus} x {machine}, Python {python}, torch {torch}, revision {revision}, {units}.

![Rewards of the runs](experiments.png)

"""

STUDY = """
## Does the kind of cold start matter?

Eight seeds, 256 held-out puzzles, one base model unless a row says otherwise; `make study` runs it
and fills in the tables. Differences are paired over seeds and puzzles, with 95 % intervals; one is
better or worse only where that holds after Holm's correction for the number of rows. RL here is
short, 64 steps of 16 prompts, so that many runs of it are affordable: it learns less than in the
table above.

<!-- table: study -->
<!-- end -->

What this says. WeFT's masking rates are not distinguishable from SFT's: after the cold start and
after RL under either objective on the first base model, after both with gspo on two others. Nor are
the other rates on the first. A difference of a point of cells would mostly have shown before RL,
one of three to four points after it. Weighting the loss by the root of the entropy instead
(`weft_sw`) is a point ahead after the cold start, and no longer after RL. Without a cold start RL
finds the form of an answer on some seeds and not on others. Under d1's objective it fails on six of
eight, which the intervals call worse; but they are made for seeds that vary evenly, and a test of
signs over eight seeds (p = .03, corrected .22) does not. Under the other objective they are so
uneven (-32.6 [-69.8, 4.5]) that nothing can be said.

Of what was varied, one thing lets WeFT come out ahead: a base so weak that the cold start does
not settle the form of an answer. There WeFT writes whole answers more often, 58 % against 36 %;
written ones are right in 28 % of their cells, SFT's in 29 %, little more than guessing's fourth.
Records so long that few answers are written point the same way, within their intervals. Where the
form is settled nothing is left of it: with 100 records 50 times over WeFT is behind by a point,
after Holm's correction as well (p = .047); with a strong base it is behind by as much, which does
not hold after that. Normaliser, slope, LoRA and a single epoch change nothing that shows. Nor does
estimating the entropies once, from the base model, instead of at each step (-0.0 [-0.6, 0.6]): what
remains of WeFT costs next to nothing then.
"""


def main(folder: Path) -> None:
    """Write docs/experiments.md and .png, and benchmarks/results/experiments.json."""
    result = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    config = OmegaConf.load(folder / "config.yaml")
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "versions": OmegaConf.to_container(config.versions),
        "revision": ", ".join(result["revisions"]),
    }
    head = HEAD.format(
        n=result["n"],
        cpus=machine["cpus"],
        machine=machine["machine"],
        python=config.versions.python,
        torch=config.versions.torch,
        revision=", ".join(result["revisions"]),
        units=f"{len(result['arms']) * len(result['seeds'])} runs",
    )
    page = (folder / "comparison.md").read_text(encoding="utf-8")
    (ROOT / "docs" / "experiments.md").write_text(
        filled(head + page.replace("# ", "## ", 1) + STUDY, ROOT / "benchmarks" / "results")
    )
    shutil.copy(folder / "curves.png", ROOT / "docs" / "experiments.png")
    kept = ROOT / "benchmarks" / "results" / "experiments.json"
    kept.write_text(json.dumps(machine | {"comparison": result}, indent=2) + "\n")
    print(f"written: {ROOT / 'docs' / 'experiments.md'}, {kept}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/experiments.py COMPARISON_FOLDER")
    main(Path(sys.argv[1]))
