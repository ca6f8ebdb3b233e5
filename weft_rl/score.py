"""`score`: verdicts and a score for saved generations, printed as one JSON object.

Records are those of rewards/scoring.py, or have `completion` and `fields` as written by a run."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option, require
from weft_rl.config.load import parse_options
from weft_rl.data.files import read_items
from weft_rl.data.json_rows import Item, Place
from weft_rl.data.tasks import REGISTRY, load_task
from weft_rl.errors import UserError
from weft_rl.evaluation.scores import percent, score
from weft_rl.rewards.math500 import Judging, judge_ahead, judging
from weft_rl.rewards.registry import REWARDS
from weft_rl.rewards.scoring import JUDGES, reason

_COLUMNS = frozenset({"question", "generation", "ground_truth", "completion", "fields", "task"})
_CHUNK = 1000  # records whose answers are compared together


@dataclass(frozen=True)
class ScoreConfig(Block):
    """Options of `score`."""

    task: str = field(
        metadata=about("sudoku, countdown, gsm8k, math500, or a Python file (docs/tasks.md)")
    )
    generations: str = field(
        metadata=about(
            "JSON lines (or an array, CSV, Parquet) with question, generation, ground_truth, or a "
            "run's completions"
        )
    )
    strict: Literal["d1"] | None = option(None, "d1: the verdicts of d1's published scorer")
    per_record: bool = option(True, "print each record's verdict too")

    def __post_init__(self) -> None:
        super().__post_init__()
        load_task(self.task)
        fits = self.strict is None or self.task in JUDGES
        require(fits, "strict", self.strict, f"d1 has no task={self.task}; leave it out")


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
    judge = REWARDS[config.task].judge
    correct, total = (sum(row[key] for row in rows) for key in ("correct", "total"))
    share = sum(row["correct"] / row["total"] for row in rows) / len(rows)
    result = {
        "task": config.task,
        "strict": config.strict,
        "n": len(rows),
        "unit": judge.unit if judge else "records",
        "correct": correct,
        "total": total,
        "score": percent(correct / total if config.strict else share),
    }
    if judge is None:
        names = rows[0]["scores"]
        means = {name: sum(row["scores"][name] for row in rows) / len(rows) for name in names}
        result["scores"] = {name: percent(mean) for name, mean in means.items()}
    flags = Counter(flag for row in rows for flag in row.get("flags", ()))
    result["flags"] = dict(sorted(flags.items()))
    if config.per_record:
        hidden = ("d1", "reason")
        result["per_record"] = [{k: v for k, v in row.items() if k not in hidden} for row in rows]
    return result | {"disagreements": [row for row in rows if "d1" in row], "broken": broken}


def _scored(
    config: ScoreConfig, items: Iterator[Item]
) -> Iterator[tuple[Place, dict[str, Any] | str]]:
    while chunk := list(islice(items, _CHUNK)):
        places, rows = zip(*chunk, strict=True)
        yield from zip(places, _chunk_scores(config, rows), strict=True)


def _chunk_scores(
    config: ScoreConfig, rows: Sequence[dict[str, Any] | str]
) -> list[dict[str, Any] | str]:
    parsed = [row if isinstance(row, str) else _parsed(config.task, row) for row in rows]
    with judging(len(rows)) as batch:

        def scores() -> list[dict[str, Any] | str]:
            return [e if isinstance(e, str) else _score(config, *e, batch) for e in parsed]

        if config.task == "math500" and config.strict is None:
            judge_ahead(batch, scores)
        return scores()


def _score(
    config: ScoreConfig, generation: str, fields: dict[str, Any], batch: Judging
) -> dict[str, Any]:
    before = batch.undecided
    scored: dict[str, Any] = {}
    flags: tuple[str, ...] = ()
    judge = REWARDS[config.task].judge
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
