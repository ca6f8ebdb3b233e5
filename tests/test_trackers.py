"""Dashboards: nothing unless asked for, what TensorBoard is told, and that no secret is written."""

import json
import sys

import pytest
from rl_trainer import small_model

from weft_rl import compare
from weft_rl.errors import UserError
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.pipeline import run as pipeline
from weft_rl.reproduce import __main__ as reproduce

SMALL = ["preset=tiny", "stages=[rl]", "eval.after_each=false", "sampler.steps=4"]
SMALL += ["rl.num_prompts=2", "rl.num_generations=2", "rl.max_steps=2", "device=cpu"]
SECRET = "no-file-may-hold-this"


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (pipeline.main, []),
        (compare.main, ["arms=[sft]"]),
        (reproduce.main, ["table=2"]),
    ],
)
def test_a_tracker_that_is_not_installed(command, argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not there
    with pytest.raises(UserError, match=r"^trackers=\[wandb\]: .*weft-rl\[wandb\]"):
        command([*argv, "trackers=[wandb]", "model=./none"])
    assert not any(tmp_path.iterdir())


def test_a_tracker_that_does_not_exist():
    with pytest.raises(UserError, match=r"^trackers=\[tensorbord\]: "):
        pipeline.main(["trackers=[tensorbord]"])


@pytest.mark.slow
def test_tensorboard_is_told_what_the_metric_lines_say(tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    start, run = tmp_path / "start", tmp_path / "run"
    small_model().save_pretrained(start)
    tiny_tokenizer().save_pretrained(start)
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    for name in ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.setenv(name, "")  # put back after the test
    argv = [*SMALL, f"model={start}"]
    assert pipeline.main([*argv, f"out={run}"]) == 0
    assert not (run / "trackers").exists()
    # may be asked of a run that is there already, which has nothing left to train
    assert pipeline.main([*argv, f"out={run}", "trackers=[tensorboard]"]) == 0

    run = tmp_path / "told"
    assert pipeline.main([*argv, f"out={run}", "trackers=[tensorboard]"]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = events.EventAccumulator(str(run / "trackers" / "tensorboard" / "rl")).Reload()
    found = [(event.step, event.value) for event in told.Scalars("train/entropy")]
    assert found == [(row["step"], pytest.approx(row["entropy"])) for row in rows]
    assert len(found) == 2
    for path in run.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
