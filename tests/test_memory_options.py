"""Where a run computes and what it keeps weights in: memory.*, device, and what they refuse."""

from pathlib import Path

import pytest
import torch
from upstream_checkpoint import llada_folder

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model, resolve_device
from weft_rl.pipeline.run import main
from weft_rl.plan.command import network_of
from weft_rl.stages.context import StageContext

CPU = torch.device("cpu")


def test_four_bits_say_what_they_need(tmp_path, monkeypatch):
    source, _ = llada_folder(tmp_path / "a")
    with pytest.raises(UserError, match="nf4: needs a CUDA device, and this runs on cpu"):
        load_model(str(source), CPU, torch.bfloat16, nf4=True)
    monkeypatch.setattr("weft_rl.models.loading.find_spec", lambda name: None)
    with pytest.raises(UserError, match="nf4: needs bitsandbytes; pip install"):
        load_model(str(source), torch.device("cuda"), torch.bfloat16, nf4=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without one")
def test_cuda_that_is_not_there():
    with pytest.raises(UserError, match="device=cuda: no CUDA device is available; use device=cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize(("rank", "device"), [(None, "cuda:0"), ("1", "cuda:1")])
def test_each_process_has_the_gpu_of_its_local_rank(monkeypatch, rank, device):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device(device)
    assert {*current} == {torch.device(device)}
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="device=cuda:2: there are 2 CUDA devices; start one"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("words", "auto"),
    [
        (["stages=[weft,rl]"], torch.bfloat16),
        (["stages=[weft,rl]", "rl.lora.r=0"], torch.float32),
        # what a stage that does not run would train is of no account
        (["stages=[weft]", "rl.lora.r=0"], torch.bfloat16),
        (["stages=[rl]", "cold_start.lora.r=0"], torch.bfloat16),
        (["stages=[eval]"], torch.bfloat16),
    ],
)
def test_a_run_and_its_plan_keep_weights_alike(monkeypatch, words, auto):
    monkeypatch.setattr("weft_rl.stages.context.resolve_device", lambda name: torch.device("cuda"))
    run = load_run_config(["model=llada_8b", *words], command="it")
    assert StageContext(run, Path("never"), run.stages[0], "never").dtype is auto
    wanted = {torch.bfloat16: "bfloat16", torch.float32: "float32"}[auto]
    assert network_of(run, run.rl.lora, half=True).weights == wanted


def test_four_bits_take_one_stage_that_trains(tmp_path, capsys):
    words = ["model=tiny", "cold_start.lora.r=2", "rl.lora.r=2", "memory.quantization=nf4"]
    out = tmp_path / "run"
    assert execute("weft_rl.pipeline", main, [*words, f"out={out}"]) == 2
    said = capsys.readouterr().err
    assert "memory.quantization=nf4: rl cannot start from an adapter on 4-bit weights" in said
    assert "run model=MERGED stages=[rl]" in said
    assert not out.exists()


def test_weights_that_all_train_are_float32():
    def load(*argv):
        return load_run_config(["model=/x", *argv], command="it")

    assert load("preset=tiny", "memory.dtype=float32").memory.dtype == "float32"
    with pytest.raises(
        UserError, match=r"memory.quantization=nf4: would .* or set cold_start.lora.r"
    ):
        load("preset=tiny", "memory.quantization=nf4")
    with pytest.raises(UserError, match=r"memory.dtype=bfloat16: would .* or set rl.lora.r"):
        load("preset=tiny", "memory.dtype=bfloat16", "cold_start.lora.r=4")
    assert load("preset=tiny", "memory.quantization=nf4", "cold_start.lora.r=4", "stages=[sft]")
