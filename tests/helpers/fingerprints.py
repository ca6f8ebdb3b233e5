"""Fingerprints of seeded runs on the tiny world, which a refactor must preserve.

Usage: python -m tests.helpers.fingerprints record FILE   run everything, write the fingerprints
       python -m tests.helpers.fingerprints check FILE    run everything, status 1 on a difference

A fingerprint holds metrics without times, scores, and hashes of completions files and weights.
Recordings are equal on one machine; another CPU rounds differently. Add renamed names to OPTIONS,
KEYS or PATHS; the file keeps the old ones."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

# Renamed options: recorded name -> current name.
OPTIONS: dict[str, str] = {}
# Renamed keys of metrics.jsonl, eval.json or completions: current name -> recorded name.
KEYS: dict[str, str] = {}
# Renamed stage folders and completions files: current name -> recorded name.
PATHS: dict[str, str] = {}

# Excluded: times, paths and machine-dependent values.
_LEFT_OUT = re.compile(
    r"(.*_)?(time|seconds|path|revision|versions?)(_s)?|.*_per_second|.*memory.*"
)
# Compared fields of a completion, by recorded name.
_COMPLETION = ("step", "id", "completion", "reward", "scores")
_SMALL = {
    "preset": "tiny",
    "task": "sudoku",
    "seed": "7",
    "cold_start.records": "200",
    "cold_start.epochs": "5",
    "cold_start.batch_size": "8",
    "cold_start.learning_rate": "2e-3",
    "rl.max_steps": "6",
    "rl.num_prompts": "4",
    "rl.num_generations": "4",
    "rl.num_iterations": "2",
    "rl.save_steps": "3",
    "sampler.steps": "8",
    "eval.num_records": "16",
}
# Module, number of processes, and options besides _SMALL.
RUNS: dict[str, tuple[str, int, str]] = {
    "weft, rl": ("weft_rl.pipeline", 1, "stages=[weft,rl]"),
    "sft, rl: mu 3, KL": (
        "weft_rl.pipeline",
        1,
        "stages=[sft,rl] rl.num_iterations=3 rl.kl_coef=0.04 cold_start.epochs=3",
    ),
    "spg": (
        "weft_rl.pipeline",
        1,
        "stages=[weft,rl] rl.loss_type=spg rl.estimator=elbo rl.masks.share_group_masks=false "
        "rl.kl_coef=0 "
        "rl.rollout.temperature=0.9 sampler.block_length=8",
    ),
    "trace": (
        "weft_rl.pipeline",
        1,
        "stages=[weft,rl] rl.estimator=trace rl.masks.num_mc_samples=4 rl.loss_type=gspo",
    ),
    "two processes": ("weft_rl.pipeline", 2, "stages=[weft,rl] device=cpu"),
    "compare": ("weft_rl.compare", 1, "arms=[sft,weft] seeds=[0] cold_start.epochs=3"),
}


def record(workers: int = 2) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fingerprints-") as folder:
        base = Path(folder) / "base"
        words = "model=tiny seed=7 base.max_steps=60 eval.after_each=false stages=[base]"
        _run("weft_rl.pipeline", 1, _options(words) | {"out": str(base)})
        (start,) = (base / "checkpoints").glob("*/step-60")

        def one(name: str) -> dict[str, Any]:
            module, processes, words = RUNS[name]
            out = Path(folder) / re.sub(r"\W+", "-", name)
            given = _SMALL | _options(words) | {"model": str(start), "out": str(out)}
            if module == "weft_rl.compare":
                del given["seed"]
            _run(module, processes, given)
            return fingerprint(out)

        with ThreadPoolExecutor(workers) as pool:
            return dict(zip(RUNS, pool.map(one, RUNS), strict=True))


def _options(words: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words.split())


def _run(module: str, processes: int, options: dict[str, str]) -> None:
    command = [sys.executable, "-m", module]
    if processes > 1:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, "-m", *launcher, "-m", module]
    command += [f"{OPTIONS.get(key, key)}={value}" for key, value in options.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr[-3000:]}")


def fingerprint(out: Path) -> dict[str, Any]:
    """Metrics, scores and hashes of a run directory or of a comparison's."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = "/".join(PATHS.get(part, part) for part in path.relative_to(out).parts)
        if path.name == "metrics.jsonl":
            found[name] = [*_rows(path)]
        elif path.name == "eval.json":
            found[name] = _kept(json.loads(path.read_text(encoding="utf-8")))
        elif path.parent.name == "completions" and path.suffix == ".jsonl":
            rows = [{key: row.get(key) for key in _COMPLETION} for row in _rows(path)]
            found[name] = _hash(json.dumps(rows))
        elif path.suffix == ".safetensors" and "model" in path.stem:
            # names and order of tensors do not count
            hashes = sorted(_hash(tensor) for tensor in load_file(path).values())
            found[name] = _hash("".join(hashes))
    if not found:
        sys.exit(f"{out}: no run directory")
    return found


def _rows(path: Path) -> Iterator[Any]:
    return (_kept(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())


def _kept(value: Any) -> Any:
    """The value under recorded key names, without times."""
    if isinstance(value, list):
        return [_kept(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {KEYS.get(key, key): _kept(item) for key, item in value.items()}
    return {key: item for key, item in renamed.items() if not _LEFT_OUT.fullmatch(key)}


def _hash(value: str | torch.Tensor) -> str:
    if isinstance(value, torch.Tensor):
        content = value.flatten().view(torch.uint8).numpy().tobytes()
        content += f"{value.dtype} {tuple(value.shape)}".encode()
    else:
        content = value.encode()
    return hashlib.sha256(content).hexdigest()[:16]


def differences(recorded: Any, found: Any, place: str = "") -> list[str]:
    """Recorded values that are missing or changed; new values are ignored."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        pairs = [(f"{place}/{key}", value, found.get(key)) for key, value in recorded.items()]
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        pairs = [
            (f"{place}/{i}", *pair) for i, pair in enumerate(zip(recorded, found, strict=True))
        ]
    else:
        return [] if recorded == found else [f"{place}: {recorded} -> {found}"]
    return [line for name, old, new in pairs for line in differences(old, new, name)]


def main(words: list[str]) -> int:
    if len(words) != 2 or words[0] not in ("record", "check"):
        sys.exit("usage: python -m tests.helpers.fingerprints record|check FILE")
    path, found = Path(words[1]), record()
    if words[0] == "record":
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"recorded: {path}")
        return 0
    lines = differences(json.loads(path.read_text(encoding="utf-8")), found)
    print("\n".join(lines) or f"equal: {path}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
