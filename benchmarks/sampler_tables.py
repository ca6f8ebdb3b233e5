"""The results of `sampler.py`: one JSON file, and its Markdown tables."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write(part: str, found: Any, machine: dict[str, Any]) -> None:
    """Replace one part's numbers, with the machine that they are from, in both files."""
    path = RESULTS / "sampler.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept[part] = {"machine": machine, "found": found}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "sampler.md").write_text(page(kept), encoding="utf-8")


def page(kept: dict[str, Any]) -> str:
    """All parts that there are, as Markdown."""
    machine = next(iter(kept.values()))["machine"]
    shape = machine["shape"]
    lines = [
        "# The sampler against the published one",
        "",
        f"On {machine['cpus']} x {machine['machine']}, {machine['threads']} threads, Python "
        f"{machine['python']}, torch {machine['torch']}; float32 on CPU, none of it on a GPU.",
        f"Model: d = {shape['hidden_size']}, {shape['num_hidden_layers']} layers, V = "
        f"{shape['vocab_size']}, prompts of {machine['prompt']} tokens unless they are puzzles.",
        "`python benchmarks/sampler.py all run=FOLDER` measures all of it; the load average beside",
        "a ratio says whether the machine was shared, which slows both sides.",
        "",
    ]
    speed = [kept[part] for part in ("greedy", "drawn", "ends", "trained") if part in kept]
    head = ["what", "published (s)", "ours (s)", "ratio", "measured", "load"]
    lines += _table(
        head,
        [
            [
                row["found"]["what"],
                f"{row['found']['published_s']:.1f}",
                f"{row['found']['ours_s']:.1f}",
                f"**{row['found']['ratio']:.1f}x**",
                row["found"]["measured"],
                str(row["machine"]["load_average"]),
            ]
            for row in speed
        ],
    )
    if "trained" in kept:
        found = kept["trained"]["found"]
        lines += [
            "The trained tiny model in this shape: its function, widened with zeros and unused "
            f"words (probabilities differ by at most {found['widened_probability_error']:.1g}). "
            f"Forwards: {found['forwards'][0]} published, {found['forwards'][1]} ours. Exact mode "
            f"there: {found['exact_ratio']:.1f}x.",
            "",
        ]
    if "control" in kept:
        lines += _control(kept["control"]["found"])
    if "quality" in kept:
        lines += _quality(kept["quality"]["found"])
    return "\n".join(lines).rstrip() + "\n"


def _control(rows: list[dict[str, Any]]) -> list[str]:
    cells = [
        [
            str(row["batch"]),
            row["mode"],
            f"{row['forward_ms']:.2f}",
            f"{100 * row['control_share']:.0f} %",
        ]
        for row in rows
    ]
    return [
        "## The control plane",
        "",
        "Of a step of the tiny model, what is neither the model nor the reduction to tokens and "
        "confidences.",
        "",
        *_table(["batch", "mode", "ms a step", "control plane"], cells),
    ]


def _quality(rows: list[dict[str, Any]]) -> list[str]:
    head = ["mode", "forwards", "cells (%)", "difference", "whole puzzles (%)", "difference"]
    cells = [
        [
            row["mode"],
            str(row["forwards"]),
            *(
                text
                for name in [key for key in row if f"{key}_drift" in row]
                for text in (f"{row[name]:.1f}", _drift(row[f"{name}_drift"]))
            ),
            f"{row['same_completions']:.0f} %",
        ]
        for row in rows
    ]
    return [
        "## What approximating costs",
        "",
        f"The trained tiny model on {rows[0]['n']} held-out puzzles, greedy, T = 32; differences "
        "from exact mode of the same block, paired, in points with 95 % intervals.",
        "",
        *_table([*head, "same as exact"], cells),
    ]


def _drift(values: list[float]) -> str:
    mean, low, high = values
    return f"{mean:+.1f} [{low:.1f}, {high:.1f}]"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
