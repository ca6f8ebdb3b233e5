"""Run folders with damaged values: report, plot and what compares runs name the file, or do."""

import copy
import json
import logging
import random
import signal
import time
from contextlib import contextmanager

import pytest
import yaml
from run_folders import SOLUTION, completion

from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import read_arm_run
from weft_rl.plot.command import plot_runs
from weft_rl.plot.curves import plot_run
from weft_rl.report.run_page import write_report
from weft_rl.runs.folder import finished_stages, read_config, read_results
from weft_rl.trainers.infra.callbacks import MetricsWriter

# Some 40 seconds; thousands were tried while this was written.
COUNT = 30
ODD = [
    *(None, True, -1, 0, 7, 1e308, -1e308, 10**400, float("nan"), float("inf"), "", "x", "\x1b[2J"),
    *("\ud800", [], {}, [[]], [1, "a"], {"a": [1]}, "1", "../../x", 2**63, -0.5, [None, None]),
]
DEEP = 100_000


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
        "entropy_heatmap-weft.json": {"examples": [heat]},
    }


def whole_comparison():
    """A comparison's folder of two runs."""
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


def places(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def mutated(tree, rng):
    """A copy with one to three values replaced, removed or moved to another place."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        found = [*places(tree)]
        if not found:
            return rng.choice(ODD)
        *path, last = rng.choice(found)
        node = tree
        for key in path:
            node = node[key]
        kind = rng.random()
        if kind < 0.7:
            node[last] = copy.deepcopy(rng.choice(ODD))
        elif kind < 0.85:
            del node[last]
        else:
            node[last] = [node[last]] if rng.random() < 0.5 else {"a": node[last]}
    return tree


def text_of(name, value):
    if name.endswith(".jsonl") and isinstance(value, list):
        return "".join(f"{json.dumps(row)}\n" for row in value)
    if name.endswith(".yaml"):
        # JSON is YAML, and takes what the YAML writer refuses
        return json.dumps(value)
    return json.dumps(value)


def broken_text(text, rng):
    kind = rng.randrange(6)
    at = rng.randrange(len(text))
    deep = rng.choice(["[" * DEEP, '{"a":' * DEEP, "[" * DEEP + "]" * DEEP, "[" * 900 + "]" * 900])
    return [text[:at], text[:at] + "\0" + text[at:], "", deep, "null", "x: &a [*a]"][kind]


def write(folder, files, name=None, text=None):
    for each, value in files.items():
        path = folder / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if each == name else text_of(each, value), errors="replace")


@contextmanager
def no_hang(seconds=60):
    def stop(*_):
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


READERS = {
    "report": write_report,
    "plot of a run": lambda run: plot_run(run, run / "curves.png"),
    "plot": lambda run: plot_runs([run], run / "plot.svg"),
    "unit": lambda run: read_arm_run(run, "weft", 0, "sudoku"),
    "small readers": lambda run: (
        finished_stages(run), read_config(run), read_results(run), MetricsWriter(run, "rl")
    ),
}  # fmt: skip


def mistakes(whole, readers, folder, count, seed):
    """What raised anything but a UserError that names a file."""
    rng, wrong = random.Random(seed), []
    for _ in range(count):
        name = rng.choice([*whole])
        value = mutated(whole[name], rng)
        text = text_of(name, value) if rng.random() < 0.85 else broken_text(json.dumps(value), rng)
        reader = rng.choice([*readers])
        write(folder, whole, name, text)
        begun = time.process_time()
        try:
            with no_hang():
                readers[reader](folder)
        except UserError as error:
            if str(folder) not in str(error):
                wrong.append(f"{reader}: {name}: {text[:300]}: names no file: {error}")
        except Exception as error:  # noqa: BLE001 - whatever else is raised is what is looked for
            wrong.append(f"{reader}: {name}: {text[:600]}: {type(error).__name__}: {error}")
        if time.process_time() - begun > 20:
            wrong.append(f"{reader}: {name}: {text[:300]}: slow")
    return wrong


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_whole_folders_are_read(tmp_path):
    write(tmp_path / "run", whole_run())
    for reader in READERS.values():
        reader(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'data-widget="entropy_heatmap"' in page
    assert 'data-widget="denoising_replay"' in page
    write(tmp_path / "both", whole_comparison())
    assert "WeFT then RL against SFT" in write_report(tmp_path / "both").read_text()


def test_damaged_runs(tmp_path):
    assert mistakes(whole_run(), READERS, tmp_path / "run", COUNT, 0) == []


def test_damaged_comparisons(tmp_path):
    readers = {"report": write_report}
    assert mistakes(whole_comparison(), readers, tmp_path / "both", COUNT // 3, 0) == []
