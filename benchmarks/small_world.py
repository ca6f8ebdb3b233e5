"""Does the small world teach a network to read a puzzle, and RL to answer it? A narrow one, on one
core of a CPU.

Usage: python benchmarks/small_world.py FOLDER run     base and WeFT in FOLDER/cold, RL in FOLDER/rl
       python benchmarks/small_world.py FOLDER table   benchmarks/results/small_cpu.json

The preset but for its width and depth, and a fraction of its batches and steps."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from machine import machine

from weft_rl.runs.folder import EVAL, METRICS, newest_checkpoint, read_json
from weft_rl.runs.jsonl import read_lines
from weft_rl.stats import crossed_mean

RESULTS = Path(__file__).parent / "results"
COMMON = ["preset=small", "device=cpu", "eval.num_records=64", "memory.mixed_precision=bf16"]
NARROW = [
    *("base.hidden_size=128", "base.num_hidden_layers=4", "base.num_attention_heads=4"),
    *("base.intermediate_size=352", "base.batch_size=32", "base.max_steps=3600"),
    *("base.warmup_steps=100", "base.logging_steps=25"),
]
RL = ["rl.num_prompts=8", "rl.max_steps=160"]
CELLS = 16


def run(folder: Path) -> None:
    """Train and evaluate; what is there is not done again."""
    begin = [sys.executable, "-m", "weft_rl.pipeline", *COMMON]
    words = [*NARROW, "stages=[weft]", f"out={folder / 'cold'}"]
    subprocess.run([*begin, *words], check=True)
    start = newest_checkpoint(folder / "cold", "weft")
    words = [*RL, f"model={start}", "stages=[rl]", f"out={folder / 'rl'}"]
    subprocess.run([*begin, *words], check=True)


def stage(folder: Path, name: str) -> dict[str, Any]:
    """A stage's steps, its time and how it ends."""
    rows = [row for row in read_lines(folder / METRICS) if row["stage"] == name]
    found = {"steps": rows[-1]["step"], "seconds": round(rows[-1]["time_s"]), "loss": {}}
    every = max(1, len(rows) // 12)
    found["loss"] = {row["step"]: round(row["loss"], 3) for row in rows[every - 1 :: every]}
    rewards = [row["reward"] for row in rows if "reward" in row]
    if rewards:
        part = max(1, len(rewards) // 4)
        found["reward"] = [
            round(sum(rewards[i : i + part]) / part, 3)
            for i in range(0, len(rewards) - part + 1, part)
        ]
    score = read_json(folder / EVAL, {}).get(name, {}).get("sudoku")
    return found | ({"score": score["score"], "ci95": score["ci95"]} if score else {})


def completions(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """A stage's held-out rows by record."""
    return {row["id"]: row for row in read_lines(folder / f"completions/eval-{name}.jsonl")}


def in_any_form(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Of the last 16 digits of each completion, in tags or not: percent of completions that have
    them, of these the clues that are copied and the empty cells that are right."""
    clues, cells, written, count = [], [], 0, 0
    for row in rows:
        count += 1
        found = re.findall(rf"[1-4]{{{CELLS}}}", row["completion"])
        if not found:
            continue
        written += 1
        puzzle, solution = row["fields"]["puzzle"], row["fields"]["solution"]
        for told, asked, right in zip(found[-1], puzzle, solution, strict=True):
            (cells if asked == "0" else clues).append(told == right)
    return {
        "written": round(100 * written / count, 1),
        "clues": round(100 * fmean(clues), 1),
        "cells": round(100 * fmean(cells), 1),
    }


def gain(folder: Path) -> dict[str, float]:
    """Points of empty cells that RL adds to its start, paired over the puzzles, and the interval's
    ends."""
    before, after = completions(folder / "cold", "weft"), completions(folder / "rl", "rl")
    score = "cell_accuracy"
    changes = [after[i]["scores"][score] - before[i]["scores"][score] for i in before]
    found = crossed_mean([changes]).within(-1.0, 1.0)
    return {key: round(100 * value, 2) for key, value in asdict(found).items()}


def table(folder: Path) -> None:
    """Write and print benchmarks/results/small_cpu.json."""
    where = {"base": "cold", "weft": "cold", "rl": "rl"}
    stages = {name: stage(folder / part, name) for name, part in where.items()}
    for name, part in where.items():
        stages[name]["in_any_form"] = in_any_form(completions(folder / part, name).values())
    stages["rl"]["gain"] = gain(folder)
    baselines = read_json(folder / "cold" / EVAL, {})["weft"]["sudoku"]["baselines"]
    found = {
        "beside": "other work on the machine's two cores",
        "stages": stages,
        "baselines": {name: each["score"] for name, each in baselines.items()},
    }
    text = json.dumps(machine() | found, indent=2) + "\n"
    (RESULTS / "small_cpu.json").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("run", "table"):
        sys.exit("usage: python benchmarks/small_world.py FOLDER run|table")
    (run if sys.argv[2] == "run" else table)(Path(sys.argv[1]))
