"""Pipeline runs of a few steps: options, cache, exit status and metrics."""

import json
from pathlib import Path

import pytest

from weft_rl.cli import execute
from weft_rl.pipeline.run import main

SMALL = [
    *("base.max_steps=4", "base.batch_size=8", "base.examples=40", "base.logging_steps=2"),
    *("cold_start.records=12", "cold_start.epochs=2", "cold_start.batch_size=4"),
    *("cold_start.logging_steps=1", "rl.num_prompts=2", "rl.num_generations=2"),
    *("rl.num_iterations=3", "rl.max_steps=6", "rl.save_steps=4", "eval.num_records=6"),
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEFT_RL_CACHE", str(folder))
        yield folder


def status(*arguments: str) -> int:
    """Exit status of a run; arguments override SMALL."""
    options = dict(word.split("=", 1) for word in [*SMALL, *arguments])
    return execute("weft_rl.pipeline", main, [f"{key}={value}" for key, value in options.items()])


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time_s"} for row in rows]
