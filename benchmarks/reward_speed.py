"""Scored records per second: weft-rl, strict=d1 and a short version of d1's rules.

Usage: python benchmarks/reward_speed.py [million]. Sides alternate on the generations of
tests/fixtures; ratios are of the best turns. million: also score a file of a million lines. Writes
benchmarks/results/rewards.json."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import naive_d1  # noqa: E402

from weft_rl.rewards.d1_scorer import evaluation as d1  # noqa: E402
from weft_rl.rewards.registry import REWARDS  # noqa: E402
from weft_rl.rewards.scoring import JUDGES  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "rewards.json"
_TURNS = 20
SHORT = {
    "sudoku": lambda text, puzzle, solution: naive_d1.sudoku(text, puzzle, solution),
    "countdown": lambda text, numbers, target: naive_d1.countdown(text, numbers, target),
    "gsm8k": lambda text, answer: naive_d1.gsm8k(text, answer),
    "math500": lambda text, answer, problem: naive_d1.math500(text, answer),
}
STRICT = {
    "sudoku": d1.sudoku,
    "countdown": d1.countdown,
    "gsm8k": d1.gsm8k,
    "math500": d1.math500,
}


def stored(task: str) -> list[tuple[str, dict]]:
    """Stored generations with their records' fields."""
    path = ROOT / "tests" / "fixtures" / f"{task}_128.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["generation"], JUDGES[task].fields(row)) for row in rows]


def rates(task: str) -> dict[str, float]:
    """Records per second of each scorer, best turn."""
    records = stored(task)
    ours = next(iter(REWARDS[task].evaluation.values()))
    ways = {"short": SHORT[task], "strict=d1": STRICT[task], "ours": ours}
    best = dict.fromkeys(ways, 0.0)
    for turn in range(_TURNS):
        for name, way in ways.items():
            start = time.perf_counter()
            for text, fields in records:
                way(text, **fields)
            rate = len(records) / (time.perf_counter() - start)
            if name == "ours" and task == "math500" and turn == 0:
                best["ours, each answer for the first time"] = rate  # later turns hit the cache
            else:
                best[name] = max(best[name], rate)
    return {name: round(rate) for name, rate in best.items()}


def million(count: int = 1_000_000) -> dict[str, float]:
    """Time `score` on a long file of Sudoku records."""
    lines = (ROOT / "tests" / "fixtures" / "sudoku_128.jsonl").read_bytes().splitlines(True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.jsonl"
        with path.open("wb") as file:
            file.writelines(lines[i % len(lines)] for i in range(count))
        code = (
            "import sys; from weft_rl.score import main; "
            f"main(['task=sudoku', 'generations={path}', 'per_record=false']); "
            # not RUSAGE_SELF: it starts at the parent's size
            "lines = [line.split() for line in open('/proc/self/status')]; "
            "peak = next(int(line[1]) for line in lines if line[0] == 'VmHWM:'); "
            "print(peak // 1024, file=sys.stderr)"
        )
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
            cwd=ROOT,
        )
        seconds = time.monotonic() - start
    return {
        "lines": count,
        "lines_per_s": round(count / seconds),
        "peak_memory_mib": int(done.stderr),
    }


def main(*, long: bool) -> None:
    """Measure, print and write the results."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result |= {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "records_per_s": {task: rates(task) for task in SHORT},
    }
    result["ratio_to_short"] = {
        task: {name: round(rate / row["short"], 2) for name, rate in row.items()}
        for task, row in result["records_per_s"].items()
    }
    if long:
        result["score"] = million()
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(long=sys.argv[1:] == ["million"])
