"""Scores of SFT and WeFT before and after RL; `make experiments` runs the comparison first.

Usage: python -m experiments.comparison COMPARISON_FOLDER. Copies scores to
benchmarks/results/experiments.json and curves to docs/experiments.png."""

import json
import os
import platform
import shutil
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def main(folder: Path) -> None:
    """Copy the results of a finished comparison."""
    result = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "versions": config["versions"],
        "revision": ", ".join(result["revisions"]),
    }
    shutil.copy(folder / "curves.png", ROOT / "docs" / "experiments.png")
    path = ROOT / "benchmarks" / "results" / "experiments.json"
    path.write_text(json.dumps(machine | {"comparison": result}, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m experiments.comparison COMPARISON_FOLDER")
    main(Path(sys.argv[1]))
