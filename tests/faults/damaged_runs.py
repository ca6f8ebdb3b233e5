"""Run and comparison directories as values, and ways to damage them."""

import json

import yaml
from run_folders import SOLUTION, completion

from weft_rl.config.load import load_run_config, to_yaml


def entry(score, **others):
    return {"n": 2, "score": score, "ci95": [score - 1, score + 1], **others}


def whole_run():
    """A run folder's files as values: lists of rows, trees of JSON, and options."""
    config = yaml.safe_load(to_yaml(load_run_config(["stages=[weft,rl]"], command="x")))
    config |= {"versions": {"torch": "2.11.0"}, "revision": "abc"}
    exact = {"exact": {"score": 5.0, "ci95": [1.0, 9.0]}, "settings": {"style": "tiny"}}
    baselines = {"row filling": entry(40.0)}
    scored = [
        completion("rl", f"<answer>{SOLUTION}</answer>", id=f"t-{i}", scores={"cells": i / 2})
        for i in range(2)
    ]
    heat = {"tokens": ["a", "b"], "entropy": [0.5, 1.0], "beta": [0.1, 0.2], "ratio": [0.5, 1.5]}
    played = {"prompt": "p", "tokens": ["a"], "opened": [1], "confidences": [0.5], "steps": 1}
    return {
        "config.yaml": config,
        "eval.json": {
            stage: {"sudoku": entry(50.0, baselines=baselines, **exact)} for stage in ("weft", "rl")
        },
        "stages.json": {"weft": "checkpoints/weft/step-2", "rl": "checkpoints/rl/step-2"},
        "metrics.jsonl": [
            *({"stage": "weft", "step": i, "loss": 2.0 - i} for i in range(3)),
            *({"stage": "rl", "step": i, "reward": 0.1 * i, "kl": 0.0} for i in range(3)),
        ],
        "completions/eval-weft.jsonl": scored,
        "completions/eval-rl.jsonl": scored,
        "completions/rl.jsonl": scored,
        "completions/trace-rl.json": {"examples": [played]},
        "token_heat-weft.json": {"examples": [heat]},
    }


def whole_comparison():
    score = {"score": 50.0, "ci95": [40.0, 60.0], "by_seed": {"0": 50.0}}
    change = {
        "seeds": [0], "difference": 1.0, "ci95": [-1.0, 3.0], "verdict": "better", "p": 0.5,
        "confidence": 0.5, "superiority": 0.5, "smallest_visible": 3.0,
    }  # fmt: skip
    run = {name: value for name, value in whole_run().items() if "trace" not in name}
    return {
        "comparison.json": {
            "arms": ["sft", "weft"], "seeds": [0], "task": "sudoku", "n": 2, "metric": "cells",
            "others": [], "missing": ["sft-seed0"], "revisions": ["a", "b"],
            "results": {arm: {"cold_start": score, "rl": score} for arm in ("sft", "weft")},
            "differences": [{"stage": "rl", "arm": "weft", "reference": "sft", **change}],
            "gains": [{"stage": "rl", "arm": "weft", "before": "cold_start", **change}],
            "baselines": {"row filling": entry(40.0)},
        },
        "config.yaml": {"arms": ["sft", "weft"], "seeds": [0], "threads": 1, "run": {"task": "x"}},
        **{f"weft-seed0/{name}": value for name, value in run.items()},
    }  # fmt: skip


def as_bytes(files):
    """YAML is written as JSON, which it contains."""
    return {
        name: "\n".join(map(json.dumps, value)).encode() + b"\n"
        if name.endswith(".jsonl")
        else json.dumps(value).encode()
        for name, value in files.items()
    }


def write(folder, files):
    for name, content in as_bytes(files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
