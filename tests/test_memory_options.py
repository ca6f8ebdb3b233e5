"""Devices, dtypes and free memory: memory.*, device, cgroup limits, and what they refuse."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from adapters import CPU
from upstream_checkpoint import llada_folder

from weft_rl.config.load import load_run_config
from weft_rl.distributed import resolve_device
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model
from weft_rl.models.memory import available_memory
from weft_rl.plan.estimate import model_shape
from weft_rl.stages.context import StageContext

MIB = 2**20


def test_four_bits_need_a_gpu_and_bitsandbytes(tmp_path, monkeypatch):
    source, _ = llada_folder(tmp_path / "a")
    with pytest.raises(UserError, match=r"memory\.quantization=nf4: .*CUDA"):
        load_model(str(source), CPU, torch.bfloat16, nf4=True)
    monkeypatch.setattr("weft_rl.models.loading.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"memory\.quantization=nf4: .*bitsandbytes"):
        load_model(str(source), torch.device("cuda"), torch.bfloat16, nf4=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_devices():
    for name in ("cuda", "abc"):
        with pytest.raises(UserError, match=f"device={name}: "):
            resolve_device(name)


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
    with pytest.raises(UserError, match="device=cuda:2: "):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("arguments", "auto"),
    [
        ("stages=[weft,rl] rl.lora.r=0", "float32"),
        # stages that do not run do not count
        *(("stages=[weft] rl.lora.r=0", "bfloat16"), ("stages=[weft,rl]", "bfloat16")),
        *(("stages=[rl] cold_start.lora.r=0", "bfloat16"), ("stages=[eval]", "bfloat16")),
    ],
)
def test_a_run_and_its_plan_have_the_same_dtype(monkeypatch, arguments, auto):
    monkeypatch.setattr("weft_rl.stages.context.resolve_device", lambda name: torch.device("cuda"))
    run = load_run_config(["model=llada_8b", *arguments.split()], command="it")
    assert StageContext(run, Path("never"), run.stages[0], "never").dtype is getattr(torch, auto)
    assert model_shape(run, run.rl.lora, bf16=True).weights == auto


def test_weights_that_all_train_are_float32():
    def load(*argv):
        return load_run_config(["model=/x", *argv], command="it")

    assert load("preset=tiny", "memory.dtype=float32").memory.dtype == "float32"
    with pytest.raises(UserError, match=r"memory\.quantization=nf4: .*cold_start\.lora\.r"):
        load("preset=tiny", "memory.quantization=nf4")
    with pytest.raises(UserError, match=r"memory\.dtype=bfloat16: .*rl\.lora\.r"):
        load("preset=tiny", "memory.dtype=bfloat16", "cold_start.lora.r=4")
    assert load("preset=tiny", "memory.quantization=nf4", "cold_start.lora.r=4", "stages=[sft]")


def group(folder, limit, used, cached=(0, 0), slab=0):
    """Files of a cgroup, version 2; sizes in MiB, or the text of the limit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit if limit == 'max' else limit * MIB}\n")
    (folder / "memory.current").write_text(f"{used * MIB}\n")
    stat = f"anon 7\nfile 9\ninactive_file {cached[0] * MIB}\nactive_file {cached[1] * MIB}\n"
    stat += f"slab_reclaimable {slab * MIB}\nslab_unreclaimable 5\n"
    (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize(
    ("machine", "path", "groups", "expected"),
    [
        # the limit less what is used, page cache and kernel tables given back
        (8000, "/", {"": (512, 200, (60, 40))}, 412),
        (8000, "/", {"": (512, 200, (10, 20), 50)}, 392),
        (8000, "/", {"": (100, 120)}, 0),
        # the machine has less than the container may use
        (300, "/", {"": (512, 100)}, 300),
        (300, "/user.slice/a.scope", {"user.slice/a.scope": ("max", 100)}, 300),
        # a batch system limits the job, and the process is in a step of it
        (8000, "/job/step", {"job": (512, 100), "job/step": (4000, 100)}, 412),
        (8000, "/job/step", {"job": (4000, 100), "job/step": (512, 100)}, 412),
        # a container sees the host's path, and its own cgroup as the mount
        (8000, "/docker/host-name", {"": (512, 100)}, 412),
        (8000, None, {}, 8000),
    ],
)
def test_free_memory_of_the_machine_and_its_cgroups(
    tmp_path, monkeypatch, machine, path, groups, expected
):
    free = SimpleNamespace(available=machine * MIB)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    (tmp_path / "proc/self").mkdir(parents=True)
    if path is not None:
        (tmp_path / "proc/self/cgroup").write_text(f"0::{path}\n")
    for name, sizes in groups.items():
        group(tmp_path / "sys/fs/cgroup" / name, *sizes)
    assert available_memory(tmp_path) == expected * MIB
    assert available_memory() > 0
