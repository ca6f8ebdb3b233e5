"""Planned memory and time of LLaDA-8B's cold start and RL on six hardware configurations.

Usage: python benchmarks/plan.py. Writes benchmarks/results/plan.json."""

import json
from pathlib import Path
from typing import Any

from weft_rl.config.load import load_run_config
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plan

_GIB = 2**30
# Hardware, weights, planner options, run options
CASES: list[tuple[str, str, PlanConfig, list[str]]] = [
    ("1 x RTX 4090, 24 GB", "nf4", PlanConfig("rtx4090"), []),
    ("1 x RTX 4090, 24 GB", "bfloat16", PlanConfig("rtx4090"), []),
    ("1 x H100, 80 GB", "bfloat16", PlanConfig(), []),
    ("8 x H100, DDP", "bfloat16", PlanConfig(devices=8), []),
    ("8 x H100, FSDP2 or ZeRO-3", "bfloat16", PlanConfig(devices=8, sharding="fsdp2"), []),
    (
        "8 x H100, FSDP2 or ZeRO-3, no LoRA",
        "float32",
        PlanConfig(devices=8, sharding="fsdp2"),
        ["cold_start.lora.r=0", "rl.lora.r=0"],
    ),
]


def rows() -> list[dict[str, Any]]:
    """Memory per device and GPU hours of each case's cold start and RL."""
    found = []
    for hardware, weights, options, words in CASES:
        stored = "quantization" if weights == "nf4" else "dtype"
        argv = ["model=llada_8b", f"memory.{stored}={weights}", *words]
        config = load_run_config(argv, command="plan")
        plans = {stage: make_plan(config, options, stage) for stage in ("weft", "rl")}
        hours = {
            stage: options.devices * plan.step_s * plan.steps / 3600
            for stage, plan in plans.items()
        }
        memory = {stage: sum(plan.memory.values()) / _GIB for stage, plan in plans.items()}
        found.append(
            {
                "hardware": hardware,
                "weights": weights,
                "gib": {stage: round(value, 2) for stage, value in memory.items()},
                "gpu_hours": {stage: round(value, 2) for stage, value in hours.items()},
            }
        )
    return found


if __name__ == "__main__":
    path = Path(__file__).parent / "results" / "plan.json"
    path.write_text(json.dumps({"rows": rows()}, indent=2) + "\n", encoding="utf-8")
