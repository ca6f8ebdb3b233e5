"""Whose a run folder is: stages that go on from it, and what a mistake leaves behind."""

import os
import signal
import threading
import time

import pytest
import yaml

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.pipeline.resume import is_untouched, open_run, take_up
from weft_rl.pipeline.run import main
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.runs.lock import run_lock

SMALL = ["preset=tiny", "eval.after_each=false", "cold_start.records=8", "cold_start.epochs=1"]
SMALL += ["cold_start.batch_size=4", "rl.num_prompts=2", "rl.num_generations=2", "rl.save_steps=1"]
SMALL += ["rl.max_steps=1000", "sampler.steps=4"]
# A prompt and so many tokens are more than the model has positions: found by the stage.
TOO_LONG = ["sampler.gen_length=512", "sampler.block_length=512"]


def words(start, out, *more):
    own = dict(word.split("=", 1) for word in [*SMALL, f"model={start}", f"out={out}", *more])
    return [f"{key}={value}" for key, value in own.items()]


def status(*given):
    return execute("it", main, words(*given))


def opened(*given):
    """Open a folder as the pipeline does, without running anything."""
    config = load_run_config(words(*given), command="it")
    run = open_run(config)
    take_up(config, run)
    return run


def interrupt_after(stage, deadline_s=120):
    """Ctrl-C as soon as the stage has a checkpoint."""
    deadline = time.monotonic() + deadline_s
    while not any(stage.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


def refuse(*_):
    raise UserError("model=x: found by a stage")


@pytest.fixture(scope="module")
def stopped(start, tmp_path_factory):
    """A run of weft and then rl, interrupted in rl."""
    out = tmp_path_factory.mktemp("runs") / "stopped"
    after = threading.Thread(target=interrupt_after, args=[out / "checkpoints" / "rl"])
    after.start()
    assert status(start, out, "stages=[weft,rl]") == 3
    after.join()
    return out


@pytest.mark.parametrize("stages", ["weft,sft,rl", "weft,sft", "sft,rl", "rl"])
def test_a_stopped_stage_is_not_gone_on_with_from_another_model(start, stopped, stages):
    """Its checkpoint began from weft, whatever the stages before it say now."""
    before = (stopped / "config.yaml").read_bytes()
    newest = newest_checkpoint(stopped, "rl").name
    with pytest.raises(UserError) as error:
        opened(start, stopped, f"stages=[{stages}]")
    said = str(error.value)
    held = f"holds weft and then rl (begun from weft, stopped at {newest})"
    assert f"{held}, which stages=[{stages}] does not go on from" in said
    assert "begin with stages=[weft,rl], which goes on there, or choose another out" in said
    assert (stopped / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("stages", ["weft", "weft,rl,sft", "weft,rl"])
def test_a_stopped_stage_is_gone_on_with(start, stopped, stages):
    assert opened(start, stopped, f"stages=[{stages}]") == stopped


def test_a_stopped_first_stage_began_from_the_model(start, tmp_path):
    run = opened(start, tmp_path / "run", "stages=[rl]")
    step = run / "checkpoints" / "rl" / "step-3"
    step.mkdir(parents=True)
    (step / "model.safetensors").write_text("")
    with pytest.raises(UserError, match=rf"holds rl \(begun from model={start}, stopped at step-3"):
        opened(start, run, "stages=[weft,rl]")


def test_the_corrected_command_uses_the_folder_of_a_mistake(start, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    short = ["stages=[rl]", "rl.max_steps=1", "resume=never"]
    assert status(start, out, *short, *TOO_LONG) == 2
    assert "sampler.gen_length=512" in capsys.readouterr().err
    assert not out.exists()
    # what no check foresees leaves a configuration
    with monkeypatch.context() as patch:
        patch.setattr("weft_rl.pipeline.run.run_pipeline", refuse)
        assert status(start, out, *short, "seed=3") == 2
    assert (out / "config.yaml").exists()
    assert is_untouched(out)
    assert status(start, out, *short) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["seed"] != 3
    # now there is what took time
    assert status(start, out, *short) == 2
    assert "holds a run already; leave out resume=never to go on" in capsys.readouterr().err
    assert status(start, out, "stages=[rl]", "rl.max_steps=2") == 2
    assert "another configuration (different: rl.max_steps)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "untouched"),
    [
        ("checkpoints/rl/step-1/model.safetensors", False),
        ("metrics.jsonl", False),
        ("completions/.eval-base-0a/part-0-of-1.jsonl", False),
        ("stages.json", False),
        ("notes.txt", False),
        (".lock", True),
        ("trackers/tensorboard/rl/events", True),
        ("checkpoints/.rl/..", True),
    ],
)
def test_what_took_time_is_not_given_away(start, tmp_path, file, untouched):
    run = opened(start, tmp_path / "run", "stages=[rl]")
    (run / file).parent.mkdir(parents=True, exist_ok=True)
    if not file.endswith(".."):
        (run / file).write_text("{}" if file == "stages.json" else "")
    assert is_untouched(run) == untouched
    if untouched:
        assert opened(start, run, "stages=[rl]", "seed=3") == run
    else:
        with pytest.raises(UserError, match=r"another configuration \(different: seed\)"):
            opened(start, run, "stages=[rl]", "seed=3")


@pytest.mark.parametrize(
    ("held", "more", "refused"),
    [
        # whatever the stages that the folder holds do not depend on
        ("base", "rl.max_steps=5", False),
        ("base", "cold_start.epochs=5 seed=3 task=countdown", False),
        ("base", "base.max_steps=9", True),
        ("base", "sampler.gen_length=64", True),
        ("base", "base.logging_steps=9 base.save_steps=9", False),
        ("weft", "rl.max_steps=5 rewards=d1 sampler.steps=8", False),
        ("weft", "seed=3", True),
        ("weft", "cold_start.learning_rate=1", True),
        ("weft", "memory.gradient_checkpointing=true cold_start.logging_steps=3", False),
        ("weft", "memory.mixed_precision=bf16", True),
        ("rl", "eval.num_records=3 eval.data=d1 eval.batch_size=3 eval.after_each=true", False),
        ("rl", "rl.watch.evaluate_steps=3 rl.save_steps=9 device=cpu", False),
        ("rl", "reliability.keep_checkpoints=5 trackers=[tensorboard]", False),
        ("rl", "rl.lora.r=3", True),
        ("rl", "sampler.steps=8", True),
        ("rl", "cold_start.epochs=3", False),  # there is no cold start there
    ],
)
def test_options_that_change_no_weights_may_change(tmp_path, held, more, refused):
    stages = "stages=[rl]" if held == "rl" else "stages=[weft,rl]"
    run = opened("tiny", tmp_path / "run", stages)
    (run / "checkpoints" / held / "step-3").mkdir(parents=True)
    (run / "checkpoints" / held / "step-3" / "model.safetensors").write_text("")
    if refused:
        with pytest.raises(UserError, match=rf"different: {more.partition('=')[0]}\)"):
            opened("tiny", run, stages, *more.split())
    else:
        assert opened("tiny", run, stages, *more.split()) == run


def test_runs_that_start_together_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    ready, folders = threading.Barrier(8), []

    def start():
        ready.wait()
        folders.append(open_run(load_run_config(["stages=[rl]"], command="it")))

    starts = [threading.Thread(target=start) for _ in range(8)]
    for each in starts:
        each.start()
    for each in starts:
        each.join()
    assert len(set(folders)) == 8
    assert {folder.parent.name for folder in folders} == {"runs"}
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("text", ["model: mine\nversions: {a: 1}\n", "arms: [sft]\nrun: {}\n", ""])
def test_another_programs_configuration_is_not_written_over(start, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="holds a run of another configuration"):
        opened(start, tmp_path, "stages=[rl]")
    assert (tmp_path / "config.yaml").read_text() == text


def test_a_folder_in_hand_keeps_its_configuration(start, tmp_path, capsys):
    """Of a run that has only begun, and has nothing to show yet."""
    run = opened(start, tmp_path / "run", "stages=[rl]")
    before = (run / "config.yaml").read_bytes()
    for more in ("seed=3", "stages=[rl,sft]"):
        with run_lock(run):
            assert status(start, run, "stages=[rl]", more) == 2
        assert f"out={run}: process {os.getpid()} on" in capsys.readouterr().err
        assert (run / "config.yaml").read_bytes() == before
