"""`score`: verdicts and a score for saved generations, printed as one JSON object.

Records are those of rewards/scoring.py, or have `completion` and `fields` as written by a run."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from weft_rl.cli import execute
from weft_rl.config.load import parse_options
from weft_rl.data.files import read_items
from weft_rl.data.json_rows import Item, Place
from weft_rl.data.tasks import REGISTRY, load_task
from weft_rl.errors import UserError
from weft_rl.evaluation.scores import score
from weft_rl.rewards.math500 import Judging, judge_ahead, judging
from weft_rl.rewards.registry import REWARDS
from weft_rl.rewards.scoring import ANY_SOLUTION, JUDGES, Judge, reason

_COLUMNS = frozenset({"question", "generation", "ground_truth", "completion", "fields", "task"})
_CHUNK = 1000  # records whose answers are compared together


@dataclass(frozen=True)
class ScoreConfig:
    """Options of `score`. Raises UserError for an invalid choice."""

    task: str = field(
        metadata={"help": "sudoku, countdown, gsm8k, math500, or a Python file (docs/tasks.md)"}
    )
    generations: str = field(
        metadata={
            "help": "JSON lines (or an array, CSV, Parquet) with question, generation, "
            "ground_truth, or a run's completions"
        }
    )
    strict: str | None = field(
        default=None, metadata={"help": "d1: the verdicts of d1's published scorer"}
    )
    per_record: bool = field(default=True, metadata={"help": "print each record's verdict too"})
    solutions: str = field(
        default="one", metadata={"help": "any: each solution of a Sudoku counts, not only the key"}
    )

    def __post_init__(self) -> None:
        load_task(self.task)
        if self.strict not in (None, "d1"):
            raise UserError(f"strict={self.strict}: must be d1 or null")
        if self.strict and self.task not in JUDGES:
            raise UserError(f"strict=d1: d1 has no task={self.task}; leave it out")
        if self.solutions not in ("one", "any"):
            raise UserError(f"solutions={self.solutions}: must be one or any")
        if self.solutions == "any" and (self.task != "sudoku" or self.strict is not None):
            raise UserError("solutions=any: is for task=sudoku without strict; leave it out")

    @property
    def judge(self) -> Judge | None:
        """Scoring of the records; None for a user's task, which has its own functions."""
        return ANY_SOLUTION if self.solutions == "any" else REWARDS[self.task].judge


def main(argv: Sequence[str]) -> int:
    """Score from command-line arguments; returns the exit status."""
    about = "Score saved generations; prints one JSON object."
    config = parse_options(ScoreConfig, argv, command="weft_rl.score", description=about)
    sys.stdout.write(json.dumps(score_file(config)) + "\n")
    return 0


def score_file(config: ScoreConfig) -> dict[str, Any]:
    """Return the verdicts and the score of a file.

    Keys: task, strict, n (records scored), unit, correct and total (in that unit). score: percent,
    mean over records; with strict=d1 100 correct / total. scores: per function of a user's task.
    flags: counts. per_record: line or record number, correct, total, scores, flags. disagreements:
    records where d1's scorer differs, with the reason; none when strict. broken: line and reason of
    records that cannot be scored, excluded elsewhere. Raises UserError for an unreadable file, no
    usable record, or a user's score outside [0, 1]."""
    columns = _COLUMNS if config.task in JUDGES else None
    items = read_items(Path(config.generations), columns, allow_pipe=True)
    rows: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    problem = f"{config.generations}: is empty"
    for place, row in _scored(config, items):
        if isinstance(row, str):
            problem = problem if broken else f"{place}: {row}"
            broken.append({"line": place.number, "reason": row})
        else:
            rows.append({"line": place.number} | row)
    if not rows:
        raise UserError(f"{problem}; name a file of generations for task={config.task}")
    correct, total = (sum(row[key] for row in rows) for key in ("correct", "total"))
    share = sum(row["correct"] / row["total"] for row in rows) / len(rows)
    scores: Counter[str] = Counter()
    for row in rows:
        scores.update(row.get("scores", {}))
    means = {name: round(100 * value / len(rows), 2) for name, value in scores.items()}
    flags = Counter(flag for row in rows for flag in row.get("flags", ()))
    return {
        "task": config.task,
        "strict": config.strict,
        "n": len(rows),
        "unit": config.judge.unit if config.judge else "records",
        "correct": correct,
        "total": total,
        "score": round(100 * (correct / total if config.strict else share), 2),
        **({"scores": means} if means else {}),
        "flags": dict(sorted(flags.items())),
        **({"per_record": [_without_d1(row) for row in rows]} if config.per_record else {}),
        "disagreements": [row for row in rows if "d1" in row],
        "broken": broken,
    }


def _without_d1(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("d1", "reason")}


def _scored(
    config: ScoreConfig, items: Iterator[Item]
) -> Iterator[tuple[Place, dict[str, Any] | str]]:
    while chunk := list(islice(items, _CHUNK)):
        with judging(len(chunk)) as batch:
            if config.task == "math500" and config.strict is None:
                judge_ahead(batch, lambda: [_score(config, row, batch) for _, row in chunk])
            scored = [(place, _score(config, row, batch)) for place, row in chunk]
        yield from scored


def _score(config: ScoreConfig, row: dict[str, Any] | str, batch: Judging) -> dict[str, Any] | str:
    parsed = row if isinstance(row, str) else _parsed(config.task, row)
    if isinstance(parsed, str):
        return parsed
    (generation, fields), judge = parsed, config.judge
    before = batch.undecided
    scored: dict[str, Any] = {}
    flags: tuple[str, ...] = ()
    if judge is None:
        functions = REWARDS[config.task].evaluation.items()
        scores = {name: score(config.task, name, f, generation, fields) for name, f in functions}
        scored |= {"correct": next(iter(scores.values())), "total": 1, "scores": scores}
    else:
        published = judge.d1(generation, **fields)
        verdict = published if config.strict else judge.ours(generation, **fields)
        scored |= {"correct": verdict.correct, "total": verdict.total}
        flags = verdict.flags
        if verdict.correct != published.correct:
            scored |= {"d1": published.correct, "reason": reason(judge, verdict, published)}
    if batch.undecided > before:
        flags += ("undecided",)
    return scored | ({"flags": list(flags)} if flags else {})


def _parsed(task: str, row: dict[str, Any]) -> tuple[str, dict[str, Any]] | str:
    if row.get("task") in [name for name in JUDGES if name != task]:
        return f"is of task={row['task']}"
    fields = row.get("fields")
    is_completion = row.get("generation") is None and isinstance(fields, dict)
    generation = row.get("completion" if is_completion else "generation")
    if not isinstance(generation, str):
        return "must be an object with a text `generation`, or with `completion` and `fields`"
    try:
        if task in JUDGES:
            judge = JUDGES[task]
            return generation, judge.fields(judge.stored(fields) if is_completion else row)
        return generation, fields if isinstance(fields, dict) else REGISTRY[task].fields(row)
    except ValueError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        return f"its fields cannot be read ({type(error).__name__}: {error})"


if __name__ == "__main__":
    sys.exit(execute("weft_rl.score", main, sys.argv[1:]))
