"""Checkpoints: checked when taken up, kept in number, and safe from a disk that is full."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from run_folders import flip
from transformers import Trainer

from weft_rl.cli import execute
from weft_rl.pipeline.run import main
from weft_rl.runs.checksums import SUMS, find_corruption, write_checksums
from weft_rl.runs.jsonl import read_lines

SMALL = ["preset=tiny", "eval.after_each=false", "cold_start.records=12", "cold_start.epochs=2"]
SMALL += ["cold_start.batch_size=4", "cold_start.logging_steps=1", "cold_start.save_steps=2"]
SMALL += ["rl.num_prompts=2", "rl.num_generations=2", "rl.max_steps=1", "sampler.steps=4"]


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A cold start of six steps that nothing stops."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(start, out, "reliability.keep_checkpoints=null") == 0
    return out


def run(start, out, *words):
    given = [*SMALL, "stages=[sft]", *words, f"model={start}", f"out={out}"]
    own = dict(word.split("=", 1) for word in given)
    return execute("weft_rl.pipeline", main, [f"{key}={value}" for key, value in own.items()])


def steps(out, stage="sft"):
    return sorted(path.name for path in (out / "checkpoints" / stage).iterdir())


def lines(out, stage="sft"):
    rows = [row for row in read_lines(out / "metrics.jsonl") if row["stage"] == stage]
    return [{key: value for key, value in row.items() if key != "time_s"} for row in rows]


def weights(out, stage="sft"):
    return (out / "checkpoints" / stage / "step-6" / "model.safetensors").read_bytes()


def test_sums_are_sha256sums_and_tell_what_is_wrong(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a b").write_text("one")
    (tmp_path / "c").write_text("two")
    assert SUMS in find_corruption(tmp_path)
    write_checksums(tmp_path)
    assert subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path, check=False).returncode == 0
    assert find_corruption(tmp_path) is None
    flip(tmp_path / "c")
    assert "c does" in find_corruption(tmp_path)
    (tmp_path / "below" / "a b").unlink()
    assert "below/a b" in find_corruption(tmp_path)
    (tmp_path / SUMS).write_text("")
    assert SUMS in find_corruption(tmp_path)


@pytest.mark.slow
def test_the_newest_ones_are_kept(start, whole, tmp_path):
    assert steps(whole) == ["step-2", "step-4", "step-6"]
    assert run(start, tmp_path / "run") == 0
    assert steps(tmp_path / "run") == ["step-4", "step-6"]


@pytest.fixture
def unfinished(whole, tmp_path):
    """The run with all its checkpoints, which has its stage to finish."""
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "stages.json").unlink()
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    start, whole, unfinished, capsys, file
):
    broken = unfinished / "checkpoints/sft/step-6" / file
    flip(broken) if file == "optimizer.pt" else broken.unlink()
    assert run(start, unfinished, "reliability.keep_checkpoints=null") == 0
    assert f"{broken.parent}: {file} " in capsys.readouterr().err
    assert (lines(unfinished), weights(unfinished)) == (lines(whole), weights(whole))
    assert steps(unfinished) == ["step-2", "step-4", "step-6", "step-6.damaged"]


@pytest.mark.slow
def test_a_finished_stage_is_finished_again_when_its_end_is_damaged(start, whole, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    flip(out / "checkpoints/sft/step-6/model.safetensors")
    assert run(start, out, "stages=[sft,rl]") == 0
    assert "step-6: model.safetensors " in capsys.readouterr().err
    assert (lines(out), weights(out)) == (lines(whole), weights(whole))
    assert len(lines(out, "rl")) == 1


@pytest.mark.slow
def test_another_number_of_processes_is_refused(start, unfinished):
    last = unfinished / "checkpoints/sft/step-6"
    shutil.copy(last / "rng_state.pth", last / "rng_state_1.pth")
    write_checksums(last)
    assert run(start, unfinished) == 2


def full_during(patch):
    """torch.save does not pass the system's error on."""

    def save(value, file, *_, **__):
        Path(file).write_bytes(b"a part of it")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    patch.setattr(torch, "save", save)


def full_after(patch):
    """A file system that keeps data back says so when it is told to write."""

    def fsync(_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    patch.setattr("os.fsync", fsync)


@pytest.mark.slow
@pytest.mark.parametrize("fill", [full_during, full_after])
def test_a_full_disk_leaves_the_checkpoint_before(start, whole, unfinished, fill):
    for later in ("step-4", "step-6"):
        shutil.rmtree(unfinished / "checkpoints" / "sft" / later)
    with pytest.MonkeyPatch.context() as patch:
        save = Trainer._save_checkpoint

        def filled(self, model, trial):
            fill(patch)
            save(self, model, trial)

        patch.setattr(Trainer, "_save_checkpoint", filled)
        assert run(start, unfinished) == 3
    assert find_corruption(unfinished / "checkpoints/sft/step-2") is None
    assert steps(unfinished) == ["step-2"]
    assert not list((unfinished / "checkpoints").glob(".*"))
    # with room again it goes on as if nothing had been
    assert run(start, unfinished) == 0
    assert (lines(unfinished), weights(unfinished)) == (lines(whole), weights(whole))
