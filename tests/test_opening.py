"""Whose a run directory is: which commands resume it, and what an early error leaves behind."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.errors import Interrupted, UserError
from weft_rl.pipeline.resume import claim_run_dir, fresh_folder, has_no_results
from weft_rl.pipeline.run import main
from weft_rl.runs.lock import run_lock

SMALL = ["preset=tiny", "eval.after_each=false", "cold_start.records=8", "cold_start.epochs=1"]
SMALL += ["cold_start.batch_size=4", "rl.num_prompts=2", "rl.num_generations=2", "rl.save_steps=1"]
SMALL += ["rl.max_steps=1000", "sampler.steps=4"]
# A prompt and so many tokens are more than the model has positions.
TOO_LONG = ["sampler.gen_length=512", "sampler.block_length=512"]


def words(start, out, *more):
    options = dict(word.split("=", 1) for word in [*SMALL, f"model={start}", f"out={out}", *more])
    return [f"{key}={value}" for key, value in options.items()]


def status(*given):
    return execute("it", main, words(*given))


def opened(*given):
    with claim_run_dir(load_run_config(words(*given), command="it")) as run:
        return run


def hold(run, stage, step, *, completed=False):
    folder = run / "checkpoints" / stage / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("")
    if completed:
        (run / "stages.json").write_text(f'{{"{stage}": "checkpoints/{stage}/step-{step}"}}')


def refused(*given):
    before = (given[1] / "config.yaml").read_bytes()
    with pytest.raises(UserError) as error:
        opened(*given)
    assert (given[1] / "config.yaml").read_bytes() == before
    return str(error.value)


@pytest.fixture
def stopped(start, tmp_path):
    """A run of weft and then rl, interrupted in rl."""
    run = opened(start, tmp_path / "run", "stages=[weft,rl]")
    hold(run, "weft", 2, completed=True)
    hold(run, "rl", 3)
    return run


def test_an_interrupted_stage_is_not_resumed_from_another_model(start, stopped, tmp_path):
    for stages in ("weft,sft,rl", "weft,sft", "sft,rl", "rl"):
        message = refused(start, stopped, f"stages=[{stages}]")
        assert message.startswith(f"out={stopped}: ")
        assert "rl (from weft, step-3)" in message
        assert "stages=[weft,rl]" in message
    for stages in ("weft", "weft,rl,sft", "weft,rl"):
        assert opened(start, stopped, f"stages=[{stages}]") == stopped
    run = opened(start, tmp_path / "other", "stages=[rl]")
    hold(run, "rl", 3)
    assert f"rl (from model={start}, step-3)" in refused(start, run, "stages=[weft,rl]")


@pytest.mark.slow
def test_the_corrected_command_uses_the_directory_of_a_mistake(
    start, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "run"
    short = ["stages=[rl]", "rl.max_steps=1", "resume=never"]
    assert status(start, out, *short, *TOO_LONG) == 2
    assert "sampler.gen_length=512" in capsys.readouterr().err
    assert not out.exists()

    def fail(*_):
        raise UserError("model=x: found by a stage")

    with monkeypatch.context() as patch:
        patch.setattr("weft_rl.pipeline.run.run_pipeline", fail)
        assert status(start, out, *short, "seed=3") == 2
    assert (out / "config.yaml").exists()
    assert has_no_results(out)
    assert status(start, out, *short) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["seed"] != 3
    # now it has results
    assert "resume=never" in refused(start, out, *short)
    assert "(different: rl.max_steps)" in refused(start, out, "stages=[rl]", "rl.max_steps=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "nothing"),
    [
        *(("checkpoints/rl/step-1/model.safetensors", False), ("metrics.jsonl", False)),
        *(("completions/.eval-base-0a/part-0-of-1.jsonl", False), ("stages.json", False)),
        *(("notes.txt", False), (".lock", True), ("trackers/tensorboard/rl/events", True)),
        ("checkpoints/.rl/..", True),
    ],
)
def test_results_are_not_given_away(start, tmp_path, file, nothing):
    run = opened(start, tmp_path / "run", "stages=[rl]")
    (run / file).parent.mkdir(parents=True, exist_ok=True)
    if not file.endswith(".."):
        (run / file).write_text("{}" if file == "stages.json" else "")
    assert has_no_results(run) == nothing
    if nothing:
        assert opened(start, run, "stages=[rl]", "seed=3") == run
    else:
        assert "(different: seed)" in refused(start, run, "stages=[rl]", "seed=3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("held", "more", "is_refused"),
    [
        # options that the completed stages do not depend on may change
        *(("base", "rl.max_steps=5", False), ("base", "base.max_steps=9", True)),
        ("base", "cold_start.epochs=5 seed=3 task=countdown", False),
        *(("base", "sampler.gen_length=64", True), ("base", "base.logging_steps=9", False)),
        ("weft", "rl.max_steps=5 rewards=d1 sampler.steps=8", False),
        *(("weft", "seed=3", True), ("weft", "cold_start.learning_rate=1", True)),
        ("weft", "memory.gradient_checkpointing=true cold_start.logging_steps=3", False),
        ("weft", "memory.mixed_precision=bf16", True),
        ("rl", "eval.num_records=3 eval.data=d1 eval.batch_size=3 eval.after_each=true", False),
        ("rl", "rl.watch.evaluate_steps=3 rl.save_steps=9 device=cpu", False),
        ("rl", "reliability.keep_checkpoints=5 trackers=[tensorboard]", False),
        *(("rl", "rl.lora.r=3", True), ("rl", "sampler.steps=8", True)),
        ("rl", "cold_start.epochs=3", False),  # there is no cold start
    ],
)
def test_options_that_change_no_weights_may_change(tmp_path, held, more, is_refused):
    stages = "stages=[rl]" if held == "rl" else "stages=[weft,rl]"
    run = opened("tiny", tmp_path / "run", stages)
    hold(run, held, 3)
    if is_refused:
        message = refused("tiny", run, stages, *more.split())
        assert f"(different: {more.partition('=')[0]})" in message
    else:
        assert opened("tiny", run, stages, *more.split()) == run


def test_runs_that_start_together_have_their_own_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    ready = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        folders = [*pool.map(lambda _: ready.wait() + 1 and fresh_folder("rl"), range(8))]
    assert len(set(folders)) == 8
    assert all(folder.is_dir() and folder.parent.name == "runs" for folder in folders)


@pytest.mark.parametrize("text", ["model: mine\nversions: {a: 1}\n", "arms: [sft]\nrun: {}\n", ""])
def test_another_programs_configuration_is_not_overwritten(start, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert f"out={tmp_path}: " in refused(start, tmp_path, "stages=[rl]")


def test_a_directory_in_use_keeps_its_configuration(start, tmp_path):
    run = opened(start, tmp_path / "run", "stages=[rl]")
    for more in ("seed=3", "stages=[rl,sft]"):
        with run_lock(run):
            message = refused(start, run, "stages=[rl]", more)
        assert f"out={run}: process {os.getpid()} on" in message


def test_other_processes_wait_for_the_first(tmp_path, monkeypatch):
    config = load_run_config(words("tiny", tmp_path, "reliability.stall_timeout=0.2"), command="it")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(Interrupted, match=f"out={tmp_path}"), claim_run_dir(config):
        pass
    (tmp_path / "config.yaml").write_text("")
    with claim_run_dir(config) as run:
        assert run == tmp_path
    assert not (tmp_path / ".lock").exists()
