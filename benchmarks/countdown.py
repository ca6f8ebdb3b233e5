"""A second task end to end: traces of Countdown, a cold start on them, reinforcement learning.

Usage: python benchmarks/countdown.py FOLDER [SEED...]. The tiny base cannot copy a problem's
numbers into an answer, and then no reward is ever found; so the cold start reads traces of a
careless teacher, who keeps the numbers in their order and often misses the target. Writes
benchmarks/results/countdown.json and .md from the seeds that are in FOLDER."""

import json
import sys
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
from machine import machine

from weft_rl.data.countdown import generate
from weft_rl.pipeline import main as pipeline
from weft_rl.seeding import seed_for

RESULTS = Path(__file__).parent / "results"
# Share of traces whose expression is drawn without looking at the target.
CARELESS = 0.5
TRACES = 3000
SETTING = ["task=countdown", "rl.num_prompts=16", "rl.max_steps=200", "rl.save_steps=200"]
SETTING += ["sampler.steps=8", "eval.num_records=256", "cold_start.epochs=10"]


def value(expression: str) -> float:
    """What a +, - or * of three single digits comes to, products first."""
    a, one, b, two, c = expression
    apply = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y}
    x, y, z = int(a), int(b), int(c)
    if two == "*" and one != "*":
        return apply[one](x, y * z)
    return apply[two](apply[one](x, y), z)


def write_traces(path: Path, seed: int) -> None:
    """Traces of training problems in s1K's schema."""
    rng = np.random.default_rng(seed_for(seed, "countdown teacher"))
    rows = []
    for record in generate("train", TRACES, seed_for(seed, "countdown traces")):
        numbers, target = record.fields["numbers"], record.fields["target"]
        a, b, c = numbers
        every = [f"{a}{one}{b}{two}{c}" for one, two in product("+-*", repeat=2)]
        right = [expression for expression in every if value(expression) == target] or every
        own = every if rng.random() < CARELESS else right
        expression = own[rng.integers(len(own))]
        question = f"Countdown: {' '.join(map(str, numbers))}={target}"
        rows.append(
            {"question": question, "thinking_trajectories": [expression], "attempt": expression}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: Path, seed: int) -> None:
    """Traces, cold start and RL of one seed, each kept."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"traces-{seed}.jsonl"
    if not data.exists():
        write_traces(data, seed)
    words = [
        *SETTING,
        "stages=[sft,rl]",
        f"seed={seed}",
        f"data={data}",
        f"out={folder / str(seed)}",
    ]
    if pipeline(words):
        raise SystemExit(f"{folder / str(seed)}: failed")


def table(folder: Path) -> None:
    """What the stages score, and the reward over training."""
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
    lines = ["| seed | base | cold start | RL | reward, first and last 3 rollouts |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        cells = [
            f"{row[stage]:.1f} [{row['ci95'][stage][0]:.1f}, {row['ci95'][stage][1]:.1f}]"
            for stage in ("base", "sft", "rl")
        ]
        reward = f"{row['first_reward']:.2f} -> {row['last_reward']:.2f}"
        lines.append(f"| {row['seed']} | {' | '.join(cells)} | {reward} |")
    text = "\n".join(lines) + "\n"
    print(text)
    result = machine() | {"setting": SETTING, "traces": TRACES, "careless": CARELESS, "runs": rows}
    (RESULTS / "countdown.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "countdown.md").write_text(text)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/countdown.py FOLDER [SEED...]")
    for each in sys.argv[2:]:
        run(Path(sys.argv[1]), int(each))
    table(Path(sys.argv[1]))
