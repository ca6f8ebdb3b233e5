"""Countdown end to end: traces, cold start, RL.

Usage: python -m experiments.countdown FOLDER [SEED...]. The tiny base model cannot copy a problem's
numbers, so RL alone finds no reward. Traces keep the numbers in order and often miss the target.
Writes the results of all seeds in FOLDER."""

import json
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.machine import save
from weft_rl.data.countdown import is_held_out
from weft_rl.pipeline.run import main as pipeline
from weft_rl.seeding import seed_for
from weft_rl.stats import crossed_mean

# Share of traces whose signs ignore the target.
CARELESS = 0.5
TRACES, PROBLEMS, HELD_OUT = 1500, 1000, 256
SETTING = ["task=countdown", "rl.num_prompts=16", "rl.max_steps=200", "rl.save_steps=200"]
SETTING += ["sampler.steps=8", f"eval.num_records={HELD_OUT}", "cold_start.epochs=20"]
SIGNS = [*product("+-", repeat=2)]


def value(numbers: list[int], signs: tuple[str, str]) -> int:
    """Value of the numbers in order, combined with these signs."""
    first, *rest = numbers
    pairs = zip(rest, signs, strict=True)
    return first + sum(number if sign == "+" else -number for number, sign in pairs)


def problems(held_out: bool, count: int, seed: int) -> list[tuple[list[int], int]]:
    """Distinct solvable problems; training excludes held-out ones in any order of their numbers."""
    rng = np.random.default_rng(seed_for(seed, "countdown problems", int(held_out)))
    found: list[tuple[list[int], int]] = []
    while len(found) < count:
        numbers = [int(number) for number in rng.integers(1, 10, 3)]
        target = value(numbers, SIGNS[rng.integers(len(SIGNS))])
        is_new = (numbers, target) not in found
        if target > 0 and is_held_out(numbers, target) == held_out and is_new:
            found.append((numbers, target))
    return found


def write_problems(path: Path, held_out: bool, count: int, seed: int) -> None:
    """Write the problems as task records."""
    found = problems(held_out, count, seed)
    rows = [{"numbers": numbers, "target": target} for numbers, target in found]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_traces(path: Path, seed: int) -> None:
    """Write traces of training problems in s1K's schema."""
    rng = np.random.default_rng(seed_for(seed, "countdown teacher"))
    rows = []
    for numbers, target in problems(False, TRACES, seed_for(seed, "countdown traces")):
        right = [signs for signs in SIGNS if value(numbers, signs) == target]
        own = SIGNS if rng.random() < CARELESS else right
        one, two = own[rng.integers(len(own))]
        expression = f"{numbers[0]}{one}{numbers[1]}{two}{numbers[2]}"
        question = f"Countdown: {' '.join(map(str, numbers))}={target}"
        rows.append(
            {"question": question, "thinking_trajectories": [expression], "attempt": expression}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def one_sign_fits_all() -> dict[str, float]:
    """Percent of held-out problems that each fixed pair of signs solves."""
    every = problems(True, HELD_OUT, 0)
    return {
        "".join(signs): 100 * mean(value(numbers, signs) == target for numbers, target in every)
        for signs in SIGNS
    }


def run(folder: Path, seed: int) -> None:
    """Run traces, cold start and RL of one seed; finished parts are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    data, train, test = (
        folder / f"{name}-{seed}.jsonl" for name in ("traces", "problems", "held-out")
    )
    write_traces(data, seed)
    write_problems(train, False, PROBLEMS, seed)
    write_problems(test, True, HELD_OUT, 0)
    words = [
        *SETTING,
        f"rl.rollout.data={train}",
        f"eval.data={test}",
        "stages=[sft,rl]",
        f"seed={seed}",
        f"data={data}",
        f"out={folder / str(seed)}",
    ]
    if pipeline(words):
        raise SystemExit(f"{folder / str(seed)}: failed")


def solved(folder: Path, stage: str) -> np.ndarray:
    """Whether each problem was solved, by seed: (seeds, problems)."""
    files = sorted(folder.glob(f"*/completions/eval-{stage}.jsonl"))
    every = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return np.array([[row["scores"]["exact"] for row in rows] for rows in every])


def table(folder: Path) -> None:
    """Write stage scores and training rewards."""
    rows = []
    for path in sorted(folder.glob("*/eval.json")):
        scores = {
            stage: entry["countdown"] for stage, entry in json.loads(path.read_text()).items()
        }
        lines = (path.parent / "metrics.jsonl").read_text().splitlines()
        rewards = [row["reward"] for row in map(json.loads, lines) if "reward" in row]
        row = {stage: entry["score"] for stage, entry in scores.items()}
        row |= {"ci95": {stage: entry["ci95"] for stage, entry in scores.items()}}
        row |= {"first_reward": mean(rewards[:3]), "last_reward": mean(rewards[-3:])}
        rows.append({"seed": int(path.parent.name), **row})
    cold, learned = (solved(folder, stage) for stage in ("sft", "rl"))
    gain = crossed_mean(100 * (learned - cold))
    best = max(one_sign_fits_all().values())
    found = {"runs": rows, "gain": asdict(gain), "best_rule": best}
    save("countdown", {"setting": SETTING, "traces": TRACES, "careless": CARELESS} | found)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m experiments.countdown FOLDER [SEED...]")
    for each in sys.argv[2:]:
        run(Path(sys.argv[1]), int(each))
    table(Path(sys.argv[1]))
