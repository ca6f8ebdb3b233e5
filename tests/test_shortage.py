"""Too little memory: said before a model is loaded, and said clearly where it has run out."""

import errno
import shlex

import pytest
import torch
from test_pipeline import SMALL, cache, status  # noqa: F401 - a fixture of all tests here
from upstream_checkpoint import llada_folder

from weft_rl.config.load import load_run_config
from weft_rl.errors import Interrupted, OutOfMemory, UserError
from weft_rl.models import loading
from weft_rl.models import memory as checks
from weft_rl.pipeline.memory_warnings import running_out, shortages
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.trainers.cold_start import ColdStartTrainer

GIB = 2**30
WHOLE = ["model=llada_8b", "cold_start.lora.r=0", "rl.lora.r=0"]


def said_of(monkeypatch, free, *words, device="cpu"):
    monkeypatch.setattr(checks, "free_memory", lambda device: free)
    monkeypatch.setattr(loading, "find_device", lambda name: torch.device(device))
    config = load_run_config(words, command="it")
    return shortages(config, config.trained)


def test_what_fits_is_not_spoken_of(monkeypatch):
    assert said_of(monkeypatch, 0.25 * GIB, "model=tiny") == []


def test_a_full_fine_tuning_of_8b_on_an_h100(monkeypatch):
    """8.02e9 parameters: 29.9 GiB of float32 weights, twice that of Adam's moments."""
    lines = said_of(monkeypatch, 79.1 * GIB, *WHOLE, device="cuda:0")
    assert [line.split(":")[0] for line in lines] == [
        "stage weft may run out of memory",
        "stage rl may run out of memory",
    ]
    assert "(optimizer 59.7 GiB, " in lines[0]
    assert "weights 29.9 GiB" in lines[0]
    assert "cuda:0 has 79.1 GiB free" in lines[0]
    assert "one after the other: cold_start.lora.r=128: " in lines[0]
    assert "one after the other: rl.lora.r=128: " in lines[1]
    assert not any("\n" in line for line in lines)


def test_only_stages_that_are_left(monkeypatch):
    monkeypatch.setattr(checks, "free_memory", lambda device: 0)
    (line,) = shortages(load_run_config(WHOLE, command="it"), ["rl"])
    assert line.startswith("stage rl ")


def test_a_cpu_is_not_told_of_four_bits(monkeypatch):
    assert any("nf4" in line for line in said_of(monkeypatch, 0, "model=llada_8b", device="cuda"))
    assert not any("nf4" in line for line in said_of(monkeypatch, 0, "model=llada_8b"))


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_nothing_is_said_where_a_launcher_shards(monkeypatch, name):
    monkeypatch.setenv(name, "true")
    assert said_of(monkeypatch, 0, *WHOLE) == []


def test_nothing_is_said_of_what_is_not_known(monkeypatch):
    assert said_of(monkeypatch, 0, "model=owner/name", "preset=tiny") == []
    assert said_of(monkeypatch, None, *WHOLE) == []


def test_a_gpu_has_free_what_the_stage_before_gave_back(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert checks.free_memory(torch.device("cuda:0")) == 50


def test_a_run_that_runs_out_of_memory(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    words = ["stages=[sft]", "eval.after_each=false", f"out={out}", "cold_start.save_steps=1"]
    step = ColdStartTrainer.compute_loss

    def greedy(self, *arguments, **named):
        if self.state.global_step == 2 and self.args.max_steps <= 0:  # not the base's
            torch.empty(10**15)
        return step(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ColdStartTrainer, "compute_loss", greedy)
        # the weights fit, 0.6 MB; training them does not
        patch.setattr(checks, "free_memory", lambda device: 700_000)
        assert status(*words) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    before, last = said.strip().splitlines()[0], said.strip().splitlines()[-1]
    assert before.startswith("weft_rl.pipeline: stage sft may run out of memory: its plan is ")
    assert "cpu has 0.7 MiB free" in before
    assert said.count("may run out of memory") == 1
    assert last.startswith("weft_rl.pipeline: stage sft: cpu had too little memory (")
    assert "DefaultCPUAllocator: can't allocate memory" in last
    assert last.endswith("plan has it: memory.gradient_checkpointing=true, cold_start.batch_size=1")
    assert f"go on with: python -m weft_rl.pipeline {shlex.join([*SMALL, *words])}; with" in last
    # it goes on where it was, once there is more
    assert newest_checkpoint(out, "sft").name == "step-2"
    assert status(*words) == 0
    assert "memory" not in capsys.readouterr().err


def config(model="llada_8b"):
    return load_run_config([f"model={model}", "preset=tiny"], command="it")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
    ],
)
def test_allocations_that_fail(error):
    with pytest.raises(OutOfMemory) as told, running_out(config(), "rl", "out=a"):
        raise error
    assert told.value.__cause__ is error
    text = str(told.value)
    assert text.startswith(f"stage rl: {loading.find_device('auto')} had too little memory (")
    assert (str(error).splitlines() or ["MemoryError"])[0] in text
    wanted = "memory.gradient_checkpointing=true, rl.lora.r=128"
    assert text.endswith(f"change, one after the other as weft-rl plan has it: {wanted}")
    assert "go on with: python -m weft_rl.pipeline out=a; with what is there, in another" in text
    assert "and more" not in text


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        OSError(errno.ENOSPC, "No space left on device"),
        UserError("a mistake"),
        Interrupted("stopped"),
    ],
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as told, running_out(config(), "rl", ""):
        raise error
    assert told.value is error


def test_stages_without_a_plan():
    for stage, advice in (("eval", "lower eval.batch_size=256"), ("base", "lower base.batch_size")):
        with pytest.raises(OutOfMemory, match=advice), running_out(config(), stage, ""):
            raise MemoryError


def test_a_model_that_is_not_here_has_no_plan():
    unknown = load_run_config(["model=owner/name", "preset=tiny"], command="it")
    with (
        pytest.raises(OutOfMemory, match="plan says of a model of this size what rl"),
        running_out(unknown, "rl", ""),
    ):
        raise MemoryError


def test_too_little_memory_is_no_fault_of_a_models_files(tmp_path, monkeypatch):
    folder, _ = llada_folder(tmp_path / "a")

    def fail(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(loading, "_load_streamed", fail)
    with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator"):
        loading.load_model(str(folder), torch.device("cpu"), torch.float32)
