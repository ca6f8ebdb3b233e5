"""Scores and training rewards of trivial policies, which solve nothing.

Usage: python benchmarks/trivial_policies.py gsm8k=FILE math500=FILE, the test sets as JSONL. Writes
benchmarks/results/policies.json. Tasks without a file keep their rows."""

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from weft_rl.data.tasks import load_records  # noqa: E402
from weft_rl.evaluation.baselines import BASELINES  # noqa: E402
from weft_rl.rewards.registry import REWARDS, Reward, training  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "policies.json"


def average(reward: Reward, texts: list[tuple[str, dict]]) -> float:
    """Mean reward over completions with their records' fields."""
    return mean(reward(text, **fields) for text, fields in texts)


def rows(task: str, data: str) -> list[dict[str, Any]]:
    """A row per policy of a task: scores in percent, means of the terms of rewards=d1."""
    records = load_records(task, data)
    found = []
    for name, policy in BASELINES[task].items():
        texts = [(policy(record), record.fields) for record in records]
        scores = {
            key: round(100 * average(f, texts), 1) for key, f in REWARDS[task].evaluation.items()
        }
        terms = {
            key: round(average(term.reward, texts), 3) for key, term in training(task, "d1").items()
        }
        row = {"task": task, "policy": name, "n": len(records), "scores": scores, "d1_terms": terms}
        found.append(row)
    return found


def main(files: dict[str, str]) -> None:
    """Measure the given tasks and the two with a test set in the package."""
    places = {"sudoku": "published", "countdown": "published", **files}
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    found = []
    for task in BASELINES:
        old = [row for row in kept if row["task"] == task]
        found += rows(task, places[task]) if task in places else old
    RESULTS.write_text(json.dumps({"rows": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
