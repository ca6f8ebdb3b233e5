"""Gradient norms of cold starts at two scales: WeFT, Table 5.

Usage: python -m experiments.gradient_norms. Norms of every step before clipping; the methods of a
seed share masks. Takes about ten minutes on two cores."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.machine import save

STAGES = ("sft", "weft_entropy", "weft")
SEEDS = (0, 1, 2)
# base model parameters; both models are pretrained once and cached
SCALES: dict[str, list[str]] = {
    "tiny": [],
    "wide": ["base.hidden_size=192", "base.num_hidden_layers=4", "base.intermediate_size=512"],
}


def norms(folder: Path, stage: str, scale: str, normalizer: str, seed: int) -> list[float]:
    """Gradient norm of every step of one cold start."""
    out = folder / f"{scale}-{stage}-{normalizer}-{seed}"
    options = [
        f"stages=[{stage}]",
        f"seed={seed}",
        f"out={out}",
        f"cold_start.loss_norm={normalizer}",
    ]
    options += ["cold_start.logging_steps=1", "eval.after_each=false", *SCALES[scale]]
    command = [sys.executable, "-m", "weft_rl.pipeline", *options]
    subprocess.run(command, check=True, capture_output=True)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["stage"] == stage]
    return [row["grad_norm"] for row in rows]


def summary(runs: list[list[float]]) -> dict[str, float]:
    """Max, median and mean of the norms: mean and spread over seeds."""
    found = {}
    for name, reduce in (("max", np.max), ("median", np.median), ("mean", np.mean)):
        values = [float(reduce(run)) for run in runs]
        found[name], found[f"{name}_sd"] = float(np.mean(values)), float(np.std(values, ddof=1))
    return found


def main() -> None:
    """Run all cells, one seed's methods in sequence, and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for scale in SCALES:
            for normalizer in ("answer", "masked"):
                for stage in STAGES:
                    runs = [norms(Path(folder), stage, scale, normalizer, s) for s in SEEDS]
                    head = {"scale": scale, "normalizer": normalizer, "stage": stage}
                    rows.append(head | summary(runs) | {"steps": len(runs[0])})
                    print(rows[-1], flush=True)
    save("gradient_norms", {"seeds": SEEDS, "rows": rows})


if __name__ == "__main__":
    main()
