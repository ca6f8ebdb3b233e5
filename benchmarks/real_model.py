"""SmolLM2-135M through adaptation, SFT and WeFT on this machine: NELBO, scores and time.

Usage: python benchmarks/real_model.py OUT [key=value ...]. The runs have preset=smollm2_cpu; WeFT
starts from the model that SFT's run has adapted. A finished stage is not repeated."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import machine, save

ARMS = ("sft", "weft")
_GRID = re.compile(r"<answer>(\s*[1-4]){16}\s*</answer>")


def run(out: Path, arm: str, options: list[str]) -> float:
    """Run one arm; return its seconds."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "weft_rl.pipeline", "preset=smollm2_cpu", f"stages=[{arm}]"]
    if arm != ARMS[0]:
        command.append(f"model={out / ARMS[0] / 'checkpoints' / 'a2d'}")
    subprocess.run([*command, f"out={out / arm}", *options], check=True)
    return time.perf_counter() - begin


def curve(run: Path, stage: str) -> list[dict[str, Any]]:
    """Held-out NELBO by step."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        {"step": row["step"], "nelbo": row["eval_nelbo"], "se": row["eval_nelbo_se"]}
        for row in lines
        if row["stage"] == stage and "eval_nelbo" in row
    ]


def complete_answers(run: Path, stage: str) -> int:
    """Number of held-out completions whose answer has the 16 digits of a grid."""
    file = run / "completions" / f"eval-{stage}.jsonl"
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return sum(bool(_GRID.search(row["completion"])) for row in rows)


def main() -> None:
    """Run both arms, and save results with this machine's description."""
    out, *options = sys.argv[1:]
    seconds = {arm: run(Path(out), arm, options) for arm in ARMS}
    result: dict[str, Any] = {"options": options, "seconds": seconds}
    result["a2d_curve"] = curve(Path(out) / ARMS[0], "a2d")
    for arm in ARMS:
        scores = json.loads((Path(out) / arm / "eval.json").read_text(encoding="utf-8"))
        for stage in ("a2d", arm):
            if stage in scores:
                complete = complete_answers(Path(out) / arm, stage)
                result[stage] = scores[stage] | {"complete_answers": complete}
    save("real_model", machine() | result)


if __name__ == "__main__":
    main()
