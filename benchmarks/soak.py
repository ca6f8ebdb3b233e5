"""Soak test: killed runs, damaged checkpoints and fuzzed inputs.

Usage: python benchmarks/soak.py [SECTION...] [share=1.0] [seed=0]. SECTION: kills, files, fuzz.
share scales the counts. Exit status 1 on any loss; failures are listed with their seed. The kills
take about half an hour."""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "faults"), str(ROOT / "benchmarks")]
os.environ["OMP_NUM_THREADS"] = "1"  # before importing torch: forks inherit its threads
# no revision: tables written here would change it between runs
os.environ["GIT_DIR"] = os.devnull

from broken import break_and_go_on, cases, stopped  # noqa: E402
from fuzz import fuzz as fuzz_one  # noqa: E402
from fuzz_targets import targets  # noqa: E402
from kills import SCENARIOS, kill_and_go_on, whole  # noqa: E402
from machine import machine, update  # noqa: E402

# Killed runs per scenario; a comparison takes three times as long.
_RUNS = {
    **{"base": 18, "sft": 20, "weft": 20, "rl": 26, "eval": 18, "pipeline": 8},
    **{"compare": 3, "reproduce": 4},
}


def kills(share: float, seed: int, root: Path) -> dict[str, Any]:
    """Kill runs of every stage at random moments; compare each with an uninterrupted one."""
    planned = {name: max(1, round(share * count)) for name, count in _RUNS.items()}
    made = {name: whole(name, root / name) for name in SCENARIOS}
    rows = {name: {"runs": 0, "kills": 0, "lost": 0} for name in planned}
    failures = []
    # interleaved: an early stop still covers every scenario
    order = sorted((i / count, name) for name, count in planned.items() for i in range(count))
    for place, name in order:
        number = seed + round(place * planned[name])
        result = kill_and_go_on(name, number, made[name], root / name)
        row = rows[name]
        row["runs"] += 1
        row["kills"] += result.kills
        row["lost"] += bool(result.wrong)
        print(f"{name} seed {number}: {', '.join(result.moments)}: {result.wrong or 'equal'}")
        sys.stdout.flush()
        if result.wrong:
            failures.append({"scenario": name, "seed": number, "wrong": result.wrong})
        entry = {"machine": machine(), "seed": seed, "rows": rows, "failures": failures}
        update("soak", {"kills": entry})
    return {"seed": seed, "rows": rows, "failures": failures}


def files(share: float, seed: int, root: Path) -> dict[str, Any]:
    """Damage each checkpoint file in each way; resume from the previous checkpoint."""
    rows, failures = {}, []
    for stage in ("sft", "weft", "rl"):
        made = whole(stage, root / stage)
        folder = stopped(stage, root / stage)
        every = [*cases(folder, stage)]
        rows[stage] = {"broken": 0, "lost": 0}
        for file, kind in every[: max(1, round(share * len(every)))]:
            wrong = break_and_go_on(stage, file, kind, folder, made, root / stage)
            rows[stage]["broken"] += 1
            rows[stage]["lost"] += bool(wrong)
            print(f"{stage} {file} {kind}: {wrong or 'equal'}")
            sys.stdout.flush()
            if wrong:
                failures.append({"stage": stage, "file": file, "break": kind, "wrong": wrong})
    return {"seed": seed, "rows": rows, "failures": failures}


# Cases per target; a configuration takes twenty times as long.
_CASES, _CONFIGURATIONS = 5000, 250


def fuzz(share: float, seed: int, root: Path) -> dict[str, Any]:
    """Fuzz inputs of every kind; each must be accepted or rejected with one line."""
    rows, failures = {}, []
    for name, (use, strategy) in targets(root).items():
        count = _CONFIGURATIONS if name == "config.yaml" else _CASES
        try:
            rows[name] = dict(fuzz_one(use, strategy, max(1, round(share * count)), seed))
        # any exception is a finding; continue with the other targets
        except Exception as error:  # noqa: BLE001
            failures.append({"target": name, "seed": seed, "wrong": repr(error)[:2000]})
        print(f"{name}: {rows.get(name, failures[-1:])}")
        sys.stdout.flush()
    return {"seed": seed, "rows": rows, "failures": failures}


SECTIONS = {"kills": kills, "files": files, "fuzz": fuzz}


def main(argv: list[str]) -> int:
    """Run the selected sections; return the exit status."""
    given = dict(word.split("=") for word in argv if "=" in word)
    share, seed = float(given.get("share", 1.0)), int(given.get("seed", 0))
    lost = 0
    for name in [word for word in argv if "=" not in word] or SECTIONS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as root:
            result = SECTIONS[name](share, seed, Path(root))
        minutes = round((time.monotonic() - begun) / 60, 1)
        update("soak", {name: {"machine": machine(), **result, "minutes": minutes}})
        lost += len(result["failures"])
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
