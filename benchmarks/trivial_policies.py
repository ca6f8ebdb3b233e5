"""What answers without any solving are worth to each reward: the table of docs/tasks.md.

Usage: python benchmarks/trivial_policies.py gsm8k=FILE math500=FILE. The files are the test sets of
GSM8K and MATH-500 (JSONL); Sudoku and Countdown use the published sets that ship with the package.
Rewrites the table between its marks, for the tasks that are named and those two."""

import re
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from weft_rl.data.records import load_records  # noqa: E402
from weft_rl.evaluation.baselines import BASELINES  # noqa: E402
from weft_rl.rewards.registry import REWARDS, Reward, training  # noqa: E402

PAGE = ROOT / "docs" / "tasks.md"
_HEAD = (
    "| task | policy | n | scores of an evaluation, percent | terms of d1's training reward, mean |"
)


def average(reward: Reward, texts: list[tuple[str, dict]]) -> float:
    """The mean of a reward over completions with their records' fields."""
    return mean(reward(text, **fields) for text, fields in texts)


def rows(task: str, data: str) -> list[str]:
    """The table's rows of a task, one per policy."""
    records = load_records(task, data)
    lines = []
    for name, policy in BASELINES[task].items():
        texts = [(policy(record), record.fields) for record in records]
        scores = "; ".join(
            f"{key} {100 * average(f, texts):.1f}" for key, f in REWARDS[task].evaluation.items()
        )
        terms = "; ".join(
            f"{key} {average(term.reward, texts):.3f}"
            + (f" x {term.weight:g}" if term.weight != 1 else "")
            for key, term in training(task, "d1").items()
        )
        lines.append(f"| {task} | {name} | {len(records)} | {scores} | {terms} |")
    return lines


def main(files: dict[str, str]) -> None:
    """Rewrite the rows of the page."""
    page = PAGE.read_text(encoding="utf-8")
    places = {"sudoku": "published", "countdown": "published", **files}
    table = [_HEAD, "|---|---|---|---|---|"]
    for task in BASELINES:
        if task in places:
            table += rows(task, places[task])
        else:
            table += re.findall(rf"^\| {task} \|.*$", page, re.MULTILINE)
    marks = re.compile(r"(<!-- policies -->\n).*?(<!-- /policies -->)", re.DOTALL)
    text = "\n".join([*table, ""])
    PAGE.write_text(marks.sub(lambda m: m[1] + text + m[2], page), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
