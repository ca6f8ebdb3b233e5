"""Machine description and JSON results of benchmarks."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers
import trl

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Machine, threads and versions."""
    return {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def save(name: str, result: dict[str, Any], *, quick: bool = False) -> None:
    """Print the results and, unless quick, write them to benchmarks/results/NAME.json."""
    _write(name, machine() | result, quick=quick)


def update(name: str, parts: dict[str, Any]) -> None:
    """Print parts of a results file and replace them there."""
    path = RESULTS / f"{name}.json"
    _write(name, (json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}) | parts)


def _write(name: str, result: dict[str, Any], *, quick: bool = False) -> None:
    text = json.dumps(result, indent=2)
    print(text, flush=True)
    if not quick:
        (RESULTS / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
