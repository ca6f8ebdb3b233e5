"""Speed of the sampler relative to the published one, and quality of its approximations.

Usage: python benchmarks/sampler.py PART... [run=FOLDER]. PART: greedy, drawn, ends, trained,
control, quality, or all. run: a tiny run of stages=[weft,rl], for the last three parts. Both sides
of a ratio alternate. Published steps cost the same, so a few are extrapolated."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from big_models import SHAPE, random_model, widened
from machine import machine, update
from published_sampler import published_sample
from torch import Tensor

from weft_rl.data.prompts import PromptFormat
from weft_rl.data.tasks import held_out_records
from weft_rl.data.text import task_prompt_ids
from weft_rl.models.loading import load_model, load_tokenizer
from weft_rl.rewards.registry import REWARDS
from weft_rl.sampler import SamplerConfig, SamplerOutput, denoise, generate
from weft_rl.stats import crossed_mean

PROMPT, LENGTH, BLOCK = 64, 256, 32
ENDS = [80, 176]  # completion lengths of two rows, half of the canvas on average
RECORDS = 256


class Enough(Exception):
    """Stops sampling after the timed steps."""


def seconds(action: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def some_steps(model: Any, ids: Tensor, config: SamplerConfig, steps: int) -> float:
    """Seconds of our first steps."""

    def stop(step: Any) -> None:
        if step.forwards == steps:
            raise Enough

    def action() -> None:
        try:
            generate(model, ids, config, on_step=stop)
        except Enough:
            return

    return seconds(action)


def random_ids(rows: int) -> Tensor:
    """Random prompts."""
    return torch.randint(0, 1000, (rows, PROMPT), generator=torch.Generator().manual_seed(0))


def greedy(temperature: float = 0.0, rounds: int = 3, few: int = 3) -> dict[str, Any]:
    """Exact mode without early stop: our first block only; all blocks cost the same."""
    model, ids = random_model(PROMPT), random_ids(1)
    model.prompt_length = 10**6  # no end
    sizes = {"gen_length": LENGTH, "block_length": BLOCK, "steps": LENGTH}
    config = SamplerConfig(**sizes, temperature=temperature, early_stop=False)
    options = {**sizes, "temperature": temperature}
    published_sample(model, ids, **options, max_steps=1)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(some_steps(model, ids, config, BLOCK) / BLOCK)
        theirs.append(seconds(lambda: published_sample(model, ids, **options, max_steps=few)) / few)
    return {
        "what": f"temperature {temperature:g}, {LENGTH} tokens, no early stop",
        "published_s": median(theirs) * LENGTH,
        "ours_s": median(ours) * LENGTH,
        "ratio": median(theirs) / median(ours),
        "measured": f"{rounds} x {few} of {LENGTH} published steps, {rounds} x {BLOCK} of ours",
        "rounds": {"published_step_s": theirs, "ours_step_s": ours},
    }


def drawn() -> dict[str, Any]:
    """`greedy` with temperature: the published sampler draws canvas-sized noise."""
    return greedy(temperature=1.0, rounds=2, few=1)


def ends(few: int = 2) -> dict[str, Any]:
    """Exact greedy mode on rows that end: ours in full, the published one extrapolated."""
    model, ids = random_model(PROMPT), random_ids(len(ENDS))
    ids[:, 0] = torch.tensor(ENDS)
    sizes = {"gen_length": LENGTH, "block_length": BLOCK, "steps": LENGTH}
    before = seconds(lambda: published_sample(model, ids, **sizes, max_steps=few))
    begun = time.perf_counter()
    out = generate(model, ids, SamplerConfig(**sizes))
    ours = time.perf_counter() - begun
    after = seconds(lambda: published_sample(model, ids, **sizes, max_steps=few))
    theirs = (before + after) / (2 * few) * LENGTH
    return {
        "what": f"temperature 0, rows end after {ENDS} tokens",
        "published_s": theirs,
        "ours_s": ours,
        "ratio": theirs / ours,
        "measured": f"2 x {few} of {LENGTH} published steps, all of ours",
        "lengths": out.lengths.tolist(),
    }


def tiny(run: Path) -> tuple[Any, Any]:
    """Newest model of a run and its tokenizer."""
    finished = json.loads((run / "stages.json").read_text(encoding="utf-8"))
    folder = str(run / [*finished.values()][-1])
    return load_model(folder, torch.device("cpu"), torch.float32).eval(), load_tokenizer(folder)


def puzzles(tokenizer: Any, count: int) -> tuple[list[Any], Tensor]:
    """Held-out Sudokus and their prompts, all of equal length."""
    records = held_out_records("sudoku", count, None)
    rows = task_prompt_ids(tokenizer, PromptFormat("tiny"), records)
    return records, torch.tensor(rows)


FAST = SamplerConfig(32, 16, 32, cache="dual", threshold=0.9)


def trained(run: Path, rows: int = 8, rounds: int = 2) -> dict[str, Any]:
    """Dual cache and threshold on the widened tiny model, both sides in full."""
    small, tokenizer = tiny(run)
    model = widened(small)
    _, ids = puzzles(tokenizer, rows)
    with torch.no_grad():
        canvas = torch.nn.functional.pad(ids, (0, 32), value=small.config.mask_token_id)
        wide, narrow = model(canvas).logits.softmax(-1), small(canvas).logits.softmax(-1)
    off = (wide[..., : narrow.shape[-1]] - narrow).abs().max().item()
    sizes = {"gen_length": 32, "block_length": 16, "steps": 32}
    exact = SamplerConfig(**sizes)
    ours, theirs, plain, found = [], [], [], {}
    for _ in range(rounds):
        ours.append(seconds(lambda: found.update(fast=generate(model, ids, FAST))))
        plain.append(seconds(lambda: found.update(exact=generate(model, ids, exact))))
        theirs.append(
            seconds(lambda: found.update(published=published_sample(model, ids, **sizes)))
        )
    same = found["exact"].lengths
    kept = torch.arange(32) < same[:, None]
    expected = found["published"][:, -32:]
    return {
        "what": f"dual cache, threshold 0.9, {rows} puzzles, 32 tokens",
        "published_s": median(theirs),
        "ours_s": median(ours),
        "ratio": median(theirs) / median(ours),
        "exact_s": median(plain),
        "exact_ratio": median(theirs) / median(plain),
        "forwards": [32, found["fast"].forwards],
        "widened_probability_error": off,
        "exact_equals_published": bool((expected == found["exact"].completions)[kept].all()),
        "measured": f"medians of {rounds}, both in full",
    }


def control(run: Path) -> list[dict[str, Any]]:
    """Share of a tiny model's step outside model and reduction."""
    small, tokenizer = tiny(run)
    _, ids = puzzles(tokenizer, 64)
    spent = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            result = function(*args, **kwargs)
            spent[0] += time.perf_counter() - begun
            return result

        return call

    forward, reduce = small.forward, denoise.sample_candidates
    small.forward, denoise.sample_candidates = timed(forward), timed(reduce)
    # `accepted` reads the class signature: wrapping forward has no effect
    rows = []
    try:
        for batch in (1, 8, 64):
            for name, config in (("exact", SamplerConfig(32, 32, 32)), ("dual", FAST)):
                shares, times, forwards = [], [], 0
                for _ in range(7):
                    spent[0] = 0.0
                    begun = time.perf_counter()
                    forwards = generate(small, ids[:batch], config).forwards
                    total = time.perf_counter() - begun
                    shares.append(1 - spent[0] / total)
                    times.append(total / forwards * 1e3)
                rows.append(
                    {
                        "batch": batch,
                        "mode": name,
                        "forward_ms": median(times),
                        "control_share": median(shares),
                    }
                )
    finally:
        small.forward, denoise.sample_candidates = forward, reduce
    return rows


def modes() -> dict[str, SamplerConfig]:
    """Modes of the quality table, exact mode first per block length."""
    found = {}
    for width in (32, 16, 8):
        exact = SamplerConfig(32, width, 32)
        found[f"exact, block {width}"] = exact
        sure = {"threshold": 0.9}
        forms: list[dict[str, Any]] = [sure, {"factor": 1.0}]
        for cache in ("prefix", "dual"):
            forms += [{"cache": cache}, {"cache": cache, **sure}]
        forms += [{"cache": "dual", "refresh_every": 4}, {"cache": "dual", "factor": 1.0}]
        for form in forms:
            name = ", ".join(
                str(v) if k == "cache" else f"{k.replace('_', ' ')} {v}" for k, v in form.items()
            )
            found[f"{name}, block {width}"] = replace(exact, **form)
    return found


def quality(run: Path) -> list[dict[str, Any]]:
    """Scores of each mode on the same puzzles, and paired differences from exact mode."""
    small, tokenizer = tiny(run)
    records, ids = puzzles(tokenizer, RECORDS)

    def scores(out: SamplerOutput, name: str) -> np.ndarray:
        score = REWARDS["sudoku"].evaluation[name]
        texts = [
            str(tokenizer.decode(row[:length]))
            for row, length in zip(out.completions.tolist(), out.lengths.tolist(), strict=True)
        ]
        pairs = zip(texts, records, strict=True)
        return np.array([score(text, **record.fields) for text, record in pairs])

    rows, exact = [], {}
    for mode, config in modes().items():
        out = generate(small, ids, config)
        found = {name: scores(out, name) for name in REWARDS["sudoku"].evaluation}
        if mode.startswith("exact"):
            exact = {**found, "tokens": out.completions}
        row: dict[str, Any] = {"mode": mode, "n": RECORDS, "forwards": out.forwards}
        for name, values in found.items():
            drift = crossed_mean([values - exact[name]])
            row[name] = 100 * values.mean()
            row[f"{name}_drift"] = [100 * x for x in (drift.mean, drift.low, drift.high)]
        same = (out.completions == exact["tokens"]).all(dim=1).float().mean()
        row["same_completions"] = 100 * same.item()
        rows.append(row)
    return rows


def main(parts: list[str], run: Path | None) -> None:
    """Measure the parts and write the results."""
    every: dict[str, Callable[[], Any]] = {"greedy": greedy, "drawn": drawn, "ends": ends}
    if run is not None:
        every |= {
            "trained": lambda: trained(run),
            "control": lambda: control(run),
            "quality": lambda: quality(run),
        }
    setting = machine() | {"numpy": np.__version__, "shape": SHAPE, "prompt": PROMPT}
    for part in every if parts == ["all"] else parts:
        found = every[part]()
        load = os.getloadavg()[0]
        entry = {"machine": setting | {"load_average": round(load, 1)}, "found": found}
        update("sampler", {part: entry})


if __name__ == "__main__":
    words = sys.argv[1:]
    folders = [Path(word.removeprefix("run=")) for word in words if word.startswith("run=")]
    main([w for w in words if not w.startswith("run=")], folders[0] if folders else None)
