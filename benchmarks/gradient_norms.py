"""The paper's Table 5 at two scales: gradient norms of the cold start, entropy against its root.

Usage: python benchmarks/gradient_norms.py. Each cell is a cold start of the pipeline from one base
model, every step's norm before clipping kept; seeds share their masks across methods. Writes
benchmarks/results/gradient_norms.json and .md. About ten minutes on two cores, once."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import machine

RESULTS = Path(__file__).parent / "results"
STAGES = {"sft": "uniform (SFT)", "weft_entropy": "entropy", "weft": "root of entropy (WeFT)"}
SEEDS = (0, 1, 2)
PAPER = {"weft_entropy": (646.1, 0.47, 2.02), "weft": (46.2, 0.43, 1.03)}  # WeFT, Table 5
# parameters of the base model; both are trained on the spot and kept in the cache
SCALES: dict[str, list[str]] = {
    "tiny": [],
    "wide": ["base.hidden_size=192", "base.num_hidden_layers=4", "base.intermediate_size=512"],
}


def norms(folder: Path, stage: str, scale: str, normalizer: str, seed: int) -> list[float]:
    """The gradient norm of every step of one cold start."""
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
    """Max, median and mean of the norms, each as its mean over seeds, and their spread."""
    found = {}
    for name, reduce in (("max", np.max), ("median", np.median), ("mean", np.mean)):
        values = [float(reduce(run)) for run in runs]
        found[name], found[f"{name}_sd"] = float(np.mean(values)), float(np.std(values, ddof=1))
    return found


def table(rows: list[dict]) -> str:
    """The rows as Markdown, the paper's own below."""
    lines = ["| model | normaliser | rate | max | median | mean |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{row[name]:.2f} ± {row[f'{name}_sd']:.2f}" for name in ("max", "median", "mean")]
        head = [row["scale"], row["normalizer"], STAGES[row["stage"]]]
        lines.append(f"| {' | '.join(head + cells)} |")
    for stage, numbers in PAPER.items():
        cells = [f"{number:g}" for number in numbers]
        lines.append(f"| {' | '.join(['LLaDA-8B, the paper', 'masked', STAGES[stage], *cells])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every cell, the methods of a seed one after the other, and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for scale in SCALES:
            for normalizer in ("answer", "masked"):
                for stage in STAGES:
                    runs = [norms(Path(folder), stage, scale, normalizer, s) for s in SEEDS]
                    head = {"scale": scale, "normalizer": normalizer, "stage": stage}
                    rows.append(head | summary(runs) | {"steps": len(runs[0])})
                    print(table(rows[-1:]).splitlines()[2], flush=True)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(machine() | {"seeds": SEEDS} | {"paper": PAPER, "rows": rows}, indent=2)
    (RESULTS / "gradient_norms.json").write_text(text + "\n")
    (RESULTS / "gradient_norms.md").write_text(table(rows))


if __name__ == "__main__":
    main()
