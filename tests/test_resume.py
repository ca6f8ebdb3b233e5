"""Going on from any checkpoint: every file of the run as if nothing had stopped it."""

import json
import shutil
from pathlib import Path

import pytest

from weft_rl.config.load import load_run_config
from weft_rl.pipeline.resume import open_run, take_up
from weft_rl.pipeline.run import run_pipeline
from weft_rl.runs.checksums import SUMS

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


def contents(run: Path) -> dict[str, object]:
    """Every file of a run by name, apart from times and from the path of the run itself."""
    # the arguments hold the time of the start, the configuration and peft's card the run's path,
    # the checksums are also theirs
    apart = ("training_args.bin", "config.yaml", "README.md", SUMS)
    return {
        str(path.relative_to(run)): untimed(path)
        for path in run.rglob("*")
        if path.is_file() and path.name not in apart
    }


def untimed(path: Path) -> object:
    content = path.read_bytes()
    if path.name == "metrics.jsonl":
        return [without_times(json.loads(line)) for line in content.splitlines()]
    if path.name == "trainer_state.json":
        state = json.loads(content)
        state["log_history"] = [without_times(row) for row in state["log_history"]]
        return state
    if path.name.startswith("metric_line"):
        kept = json.loads(content)
        return kept if not isinstance(kept["metrics"], dict) else without_times(kept["metrics"])
    return content


def without_times(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in ("time_s", "step_time")}


def run_to_the_end(out: Path) -> None:
    """The pipeline without its pictures and pages."""
    config = load_run_config([*SMALL, f"out={out}"], command="weft_rl.pipeline")
    run = open_run(config)
    take_up(config, run)
    run_pipeline(config, run, [])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stops, with its checkpoints of every step."""
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
    ours, theirs = contents(out), contents(whole)
    assert ours.keys() == theirs.keys()
    different = [name for name in theirs if ours[name] != theirs[name]]
    assert different == []
