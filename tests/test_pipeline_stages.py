"""Which stages a run folder is taken up with, how a run is gone on with, what is said at once."""

import json
import os
import shlex

import pytest
import torch
from test_pipeline import SMALL, cache, status  # noqa: F401 - a fixture of all tests here

from weft_rl.cli import execute
from weft_rl.pipeline.run import main
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.stages import STAGE_RUNNERS


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run of weft and rl."""
    out = tmp_path_factory.mktemp("runs") / "done"
    assert main([*SMALL, f"out={out}"]) == 0
    return out


@pytest.mark.parametrize("stages", ["rl", "sft,rl", "rl,weft"])
def test_stages_that_do_not_go_on_from_a_folders_are_refused(done, capsys, stages):
    """They would start from another model than they say, or not be run."""
    before = (done / "config.yaml").read_bytes()
    assert status(f"stages=[{stages}]", f"out={done}") == 2
    said = capsys.readouterr().err
    assert f"holds weft and then rl, which stages=[{stages}] does not go on from" in said
    assert "begin with stages=[weft,rl], which is not run again" in said
    assert (done / "config.yaml").read_bytes() == before


def test_a_folder_is_taken_up_with_more_stages(done, tmp_path):
    out = tmp_path / "run"
    assert status("stages=[weft]", f"out={out}") == 0
    assert status("stages=[weft,rl]", f"out={out}") == 0
    for stage in ("weft", "rl"):
        one, other = (newest_checkpoint(run, stage) / "model.safetensors" for run in (done, out))
        assert one.read_bytes() == other.read_bytes()
    # nothing to do, and the same stages still stand in the folder
    assert status("stages=[weft]", f"out={out}") == 0
    assert list(json.loads((out / "stages.json").read_text())) == ["base", "weft", "rl"]


def test_the_last_step_has_a_line(tmp_path):
    """Of the six here, with a line every four."""
    out = tmp_path / "run"
    words = [word for word in SMALL if not word.startswith("cold_start.logging_steps")]
    assert main([*words, "stages=[weft]", "cold_start.logging_steps=4", f"out={out}"]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["stage"] == "weft"] == [4, 6]
    assert all(row["loss"] > 0 for row in rows)


@pytest.mark.parametrize("named", [True, False])
def test_the_way_to_go_on_can_be_pasted(tmp_path, monkeypatch, capsys, named):
    """Words in which `out=` stands as well, a folder with a blank, and resume=never, under which it
    would be refused."""
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "stages=[weft]", "cold_start.lora.r=2", "cold_start.lora.dropout=0.1"]
    words += ["out=a run"] if named else []
    never = ["resume=never", *words]

    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(STAGE_RUNNERS, "weft", STAGE_RUNNERS["weft"]._replace(run=stopped))
        assert execute("weft_rl.pipeline", main, never) == 3
    said = capsys.readouterr().err.strip().rpartition("go on with: python -m weft_rl.pipeline ")[2]
    (out,) = (tmp_path / name for name in (["a run"] if named else os.listdir(tmp_path / "runs")))
    again = shlex.split(said)
    assert [word for word in again if word.startswith("out=")] == [
        "out=a run" if named else f"out=runs/{out.name}"
    ]
    assert [word for word in again if not word.startswith("out=")] == words[: len(words) - named]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rl.lora.targets=[nope]", "rl.lora.r=2"], "rl.lora.targets: no module is called nope"),
        (["device=cuda"], "device=cuda: no CUDA device is available"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without one")
def test_what_a_later_stage_cannot_have_is_said_at_once(tmp_path, capsys, words, said):
    out = tmp_path / "run"
    assert status(*words, f"out={out}") == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_models_folder_is_looked_at_before_data(tmp_path, capsys):
    """Its data may be on the hub, which is slow to say that it is not there."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    words = ["preset=paper", f"model={tmp_path}", f"data={tmp_path / 'none.jsonl'}"]
    assert execute("it", main, words) == 2
    assert f"{tmp_path}: model_type='bert': no such family" in capsys.readouterr().err
