"""Rewards on 100,000 hostile texts: exceptions, range, time, memory, unearned reward.

Usage: python benchmarks/reward_fuzz.py [COUNT]. Texts come from tests/helpers/hostile.py; math500
gets 1% of them. Writes benchmarks/results/reward_fuzz.json."""

import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from hostile import RECORDS, cheap_rewards, completions, timed, unearned  # noqa: E402

from weft_rl.rewards.math_subprocess import WALL_S  # noqa: E402
from weft_rl.rewards.registry import REWARDS  # noqa: E402

_SEED = 2024


def main(count: int) -> None:
    """Score the texts and write the results; raise on failure."""
    rows: dict[str, dict[str, float]] = {}
    rewards = [(f"{f.__module__.removeprefix('rewards.')}.{f.__name__}", f, r) for f, r in _all()]
    for text in completions(_SEED, count):
        if unearned(text):
            raise ValueError(f"{unearned(text)} is paid unsolved on {text[:200]!r}")
        for name, reward, record in rewards:
            value, taken = timed(reward, text, record)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value} on {text[:200]!r}")
            row = rows.setdefault(name, {"calls": 0, "paid": 0, "slowest_ms": 0.0})
            row["calls"] += 1
            row["paid"] += value > 0
            row["slowest_ms"] = max(row["slowest_ms"], round(1000 * taken, 2))
    rows["math500.exact"] = _math(count // 100)
    result = {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "texts": count,
        "longest_text": max(map(len, completions(_SEED, count))),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "rewards": rows,
    }
    path = ROOT / "benchmarks" / "results" / "reward_fuzz.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _all() -> list:
    seen = {}
    for reward, record in cheap_rewards():
        seen.setdefault(reward, record)
    return list(seen.items())


def _math(count: int) -> dict[str, float]:
    reward, slowest, paid = REWARDS["math500"].evaluation["exact"], 0.0, 0
    for text in completions(_SEED + 1, count):
        start = time.monotonic()
        paid += reward(text, **RECORDS["math500"]) > 0
        slowest = max(slowest, time.monotonic() - start)
    if paid:  # no text contains the answer
        raise ValueError(f"math500 paid {paid} texts")
    if slowest > WALL_S:
        raise ValueError(f"math500 took {slowest:.1f} s")
    return {"calls": count, "paid": paid, "slowest_ms": round(1000 * slowest, 2)}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
