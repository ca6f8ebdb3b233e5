"""Resuming from any checkpoint: every file is equal to that of a run that nothing stopped."""

import json
import shutil
from pathlib import Path

import pytest
from folders import contents

from weft_rl.config.load import load_run_config
from weft_rl.pipeline.resume import claim_run_dir
from weft_rl.pipeline.run import run_pipeline
from weft_rl.runs.checksums import SUMS

pytestmark = pytest.mark.slow
STAGES = ("base", "weft", "rl")
# metric lines of two steps, checkpoints of one: half of them fall in the middle of a line
SMALL = [
    *("base.max_steps=5", "base.batch_size=8", "base.examples=40"),
    *("base.logging_steps=2", "base.save_steps=1"),
    *("cold_start.records=12", "cold_start.epochs=2", "cold_start.batch_size=4"),
    *("cold_start.logging_steps=2", "cold_start.save_steps=1"),
    *("cold_start.entropy_pass.rates=cached", "cold_start.entropy_pass.refresh_every=2"),
    *("rl.num_prompts=2", "rl.num_generations=2", "rl.num_iterations=2", "rl.max_steps=5"),
    *("rl.watch.logging_steps=2", "rl.watch.evaluate_steps=2", "rl.watch.evaluate_records=2"),
    *("rl.save_steps=1", "rl.lora.r=2", "rl.kl_coef=0.1"),
    *("eval.num_records=6", "eval.batch_size=1", "sampler.steps=4"),
    "reliability.keep_checkpoints=null",
]


# Files with the time or the path of the run, and the checksums of them.
APART = ("training_args.bin", "config.yaml", "README.md", SUMS)


def files(run: Path) -> dict[str, bytes]:
    found = contents(run)
    return {name: content for name, content in found.items() if Path(name).name not in APART}


def run_to_the_end(out: Path) -> None:
    config = load_run_config([*SMALL, f"out={out}"], command="weft_rl.pipeline")
    with claim_run_dir(config) as run:
        run_pipeline(config, run, [])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEFT_RL_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("whole") / "run"
        run_to_the_end(out)
    return out


def killed(whole: Path, out: Path, stage: str, step: int) -> None:
    """What a kill leaves that comes after lines of later steps, before their checkpoint."""
    shutil.copytree(whole, out)
    for folder in (out / "checkpoints" / stage).iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    unfinished = STAGES[STAGES.index(stage) :]
    for later in unfinished[1:]:
        shutil.rmtree(out / "checkpoints" / later)
    for file in ("stages.json", "eval.json"):
        kept = json.loads((out / file).read_text())
        (out / file).write_text(json.dumps({k: v for k, v in kept.items() if k not in unfinished}))
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines = [line for line in lines if json.loads(line)["stage"] not in unfinished[1:]]
    (out / "metrics.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("base", 3),
        ("weft", 3),  # the middle of a metric line, the end of an epoch
        ("rl", 2),  # a rollout's end
        ("rl", 3),  # its middle, and that of a metric line
        ("rl", 5),  # the last step, which is in the middle of an epoch
    ],
)
def test_every_file_is_as_if_nothing_had_stopped_it(whole, tmp_path, stage, step, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    killed(whole, out, stage, step)
    run_to_the_end(out)
    ours, theirs = files(out), files(whole)
    assert ours.keys() == theirs.keys()
    different = [name for name in theirs if ours[name] != theirs[name]]
    assert different == []
