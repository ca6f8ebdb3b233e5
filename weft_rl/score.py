"""`score`: saved generations -> verdicts and a score, printed as one JSON object.

A generations file has records with `question`, `generation` and `ground_truth`, of which
rewards/scoring.py says what each task's hold, or a run's completions. It is read and judged record
by record, and what is printed for each waits in temporary files: a file of any length takes the
same memory."""

import json
import os
import shutil
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

from weft_rl.cli import execute
from weft_rl.config.load import parse_options
from weft_rl.data.files import read_items
from weft_rl.data.generations import COLUMNS, parse
from weft_rl.data.json_rows import Item, Place
from weft_rl.data.tasks import load_task
from weft_rl.errors import UserError
from weft_rl.evaluation.scores import score
from weft_rl.rewards.answers.judge import Judging, judge_ahead, judging
from weft_rl.rewards.answers.pool import use_workers
from weft_rl.rewards.registry import EVALUATION
from weft_rl.rewards.scoring import ANY_SOLUTION, JUDGES, Judge, Verdict, reason

# Records are judged in parcels of about so many characters, large against what sending them costs.
_PARCEL = 1 << 18
_OVERHEAD = 1000  # characters that a record counts besides its texts: an empty one is not free
# From this file size on several processes are used: a record of math500 takes some milliseconds,
# those of other tasks some hundredths of one; each process for math500 needs a second for sympy.
_PARALLEL_BYTES = {"math500": 1 << 20}
_PARALLEL_BYTES_ELSE = 8 << 20
_IN_MEMORY = 1 << 20  # bytes of each list that is to be printed; the rest waits on disk

Parcel = list[Item]


@dataclass(frozen=True)
class ScoreConfig:
    """Options of `score`. Raises UserError for a value that is none of the choices."""

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
        default="one",
        metadata={"help": "any: each solution of a Sudoku counts, not the key's only"},
    )
    workers: int | None = field(
        default=None, metadata={"help": "processes; null: several for a large file"}
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
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers={self.workers}: must be at least 1, or null")

    @property
    def judge(self) -> Judge | None:
        """How the records are scored; None for a task of one's own, which has its functions."""
        return ANY_SOLUTION if self.solutions == "any" else JUDGES.get(self.task)


@dataclass
class _Tally:
    """What has been counted so far."""

    n: int = 0
    correct: float = 0
    total: int = 0
    share: float = 0.0  # of each record, added up
    scores: Counter[str] = field(default_factory=Counter)  # of a task of one's own, added up
    flags: Counter[str] = field(default_factory=Counter)
    first_broken: str | None = None

    def add(self, row: dict[str, Any]) -> None:
        self.n += 1
        self.correct += row["correct"]
        self.total += row["total"]
        self.share += row["correct"] / row["total"]
        self.scores.update(row.get("scores", {}))
        self.flags.update(row.get("flags", ()))


def main(argv: Sequence[str]) -> int:
    """Score from command-line arguments; returns the exit status."""
    about = "Score saved generations; prints one JSON object."
    options = parse_options(ScoreConfig, argv, command="weft_rl.score", description=about)
    return run(options)


def run(config: ScoreConfig) -> int:
    """Score the file and print the result; returns 0.

    Printed are task, strict, n (records scored), unit, correct and total (in that unit), score
    (percent: the mean over records as in eval.json; with strict=d1 100 correct / total, as d1 has
    it), scores (of a task of one's own: each of its functions), flags (how often each occurs; a
    record is "undecided" where a comparison had no verdict in time), per_record (line, correct,
    total, and scores and flags if there are any), disagreements (records on which d1's scorer
    differs, each with the reason; none when strict) and broken (line and reason of every record
    that could not be scored: these count nowhere else). In an array or in Parquet, line is the
    number of the record. Raises UserError for a file that cannot be read or has no usable record.
    """
    with ExitStack() as stack:
        lists = {
            name: stack.enter_context(
                SpooledTemporaryFile(max_size=_IN_MEMORY, mode="w+", encoding="ascii")
            )
            for name in ("per_record", "disagreements", "broken")
        }
        if not config.per_record:
            del lists["per_record"]
        tally = _Tally()
        for outcome in _outcomes(config):
            for name, row in _sorted_in(outcome, tally).items():
                if name in lists:
                    lists[name].write(f"{', ' if lists[name].tell() else ''}{json.dumps(row)}")
        if not tally.n:
            _refuse(config, tally)
        sys.stdout.write(json.dumps(_summary(config, tally))[:-1])
        for name, rows in lists.items():
            sys.stdout.write(f', "{name}": [')
            rows.seek(0)
            shutil.copyfileobj(rows, sys.stdout)
            sys.stdout.write("]")
    sys.stdout.write("}\n")
    return 0


def _sorted_in(outcome: dict[str, Any], tally: _Tally) -> dict[str, dict[str, Any]]:
    """Which lists a record goes into, and as what; it is counted too if it was scored."""
    if "correct" not in outcome:
        place = outcome.pop("place")
        tally.first_broken = tally.first_broken or f"{place}: {outcome['reason']}"
        return {"broken": outcome}
    row = {key: outcome[key] for key in outcome if key not in ("d1", "reason")}
    tally.add(row)
    return {"per_record": row} | ({"disagreements": outcome} if "d1" in outcome else {})


def _summary(config: ScoreConfig, tally: _Tally) -> dict[str, Any]:
    pooled = tally.correct / tally.total
    scores = {name: round(100 * tally.scores[name] / tally.n, 2) for name in tally.scores}
    return {
        "task": config.task,
        "strict": config.strict,
        "n": tally.n,
        "unit": config.judge.unit if config.judge else "records",
        "correct": tally.correct,
        "total": tally.total,
        "score": round(100 * (pooled if config.strict else tally.share / tally.n), 2),
        **({"scores": scores} if scores else {}),
        "flags": dict(sorted(tally.flags.items())),
    }


def _refuse(config: ScoreConfig, tally: _Tally) -> None:
    """Raise UserError for a file without a usable record, naming its first broken one."""
    why = tally.first_broken or f"{config.generations}: is empty"
    raise UserError(f"{why}; name a file of generations for task={config.task}")


def _outcomes(config: ScoreConfig) -> Iterator[dict[str, Any]]:
    """What became of each record, in order: see judge_all."""
    path = Path(config.generations)
    columns = COLUMNS if config.task in JUDGES else None
    parcels = _parcels(read_items(path, columns, allow_pipe=True))
    workers = _workers(config, path)
    if workers == 1:
        yield from chain.from_iterable(judge_all(config, parcel) for parcel in parcels)
    else:
        yield from _in_parallel(config, parcels, workers)


def _workers(config: ScoreConfig, path: Path) -> int:
    if config.workers is not None or not path.exists():
        return config.workers or 1
    worthwhile = path.stat().st_size >= _PARALLEL_BYTES.get(config.task, _PARALLEL_BYTES_ELSE)
    return len(os.sched_getaffinity(0)) if worthwhile else 1


def _in_parallel(
    config: ScoreConfig, parcels: Iterator[Parcel], workers: int
) -> Iterator[dict[str, Any]]:
    """The outcomes in order; only a few parcels are under way, however long the file.

    The processes are forked, not started anew: nothing here has threads, and a caller's own main
    module is not run again."""
    waiting: deque[Future[list[dict[str, Any]]]] = deque()
    # each compares with one process behind it: together they have all cores
    with ProcessPoolExecutor(workers, get_context("fork"), use_workers, (1,)) as pool:
        for parcel in parcels:
            waiting.append(pool.submit(judge_all, config, parcel))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _parcels(items: Iterable[Item]) -> Iterator[Parcel]:
    parcel: Parcel = []
    size = 0
    for where, row in items:
        parcel.append((where, row))
        texts = [row] if isinstance(row, str) else row.values()
        size += _OVERHEAD + sum(len(text) for text in texts if isinstance(text, str))
        if size >= _PARCEL:
            yield parcel
            parcel, size = [], 0
    if parcel:
        yield parcel


def judge_all(config: ScoreConfig, parcel: Parcel) -> list[dict[str, Any]]:
    """What became of each record.

    line, correct, total, and scores and flags if there are any; d1 and reason too where d1's scorer
    differs; line, reason and place alone for one that could not be scored. Raises UserError for a
    score of a task of one's own that is not in [0, 1]."""
    with judging(len(parcel)) as batch:
        if config.task == "math500" and config.strict is None:
            judge_ahead(batch, lambda: [_judged(config, batch, *item) for item in parcel])
        return [_judged(config, batch, *item) for item in parcel]


def _judged(
    config: ScoreConfig, batch: Judging, where: Place, row: dict[str, Any] | str
) -> dict[str, Any]:
    parsed = row if isinstance(row, str) else parse(config.task, row)
    if isinstance(parsed, str):
        return {"line": where.number, "reason": parsed, "place": str(where)}
    (generation, fields), judge, undecided = parsed, config.judge, batch.undecided
    outcome: dict[str, Any] = {"line": where.number}
    flags: list[str] = []
    if judge is None:
        functions = EVALUATION[config.task].items()
        scores = {name: score(config.task, name, f, generation, fields) for name, f in functions}
        outcome |= {"correct": next(iter(scores.values())), "total": 1, "scores": scores}
    else:
        published = judge.d1(generation, **fields)
        verdict: Verdict = published if config.strict else judge.ours(generation, **fields)
        outcome |= {"correct": verdict.correct, "total": verdict.total}
        flags += verdict.flags
        if verdict.correct != published.correct:
            outcome |= {"d1": published.correct, "reason": reason(judge, verdict, published)}
    flags += ["undecided"] * (batch.undecided > undecided)
    return outcome | ({"flags": flags} if flags else {})


if __name__ == "__main__":
    sys.exit(execute("weft_rl.score", main, sys.argv[1:]))
