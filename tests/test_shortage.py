"""Too little memory: the warning before a model is loaded, and the advice after it ran out."""

import errno

import pytest
import torch
from pipeline_runs import SMALL, cache, status  # noqa: F401 - a fixture of all tests here
from upstream_checkpoint import llada_folder

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.errors import Interrupted, OutOfMemory, UserError
from weft_rl.models import loading
from weft_rl.models import memory as model_memory
from weft_rl.pipeline.memory_warnings import advise_on_out_of_memory, memory_warnings
from weft_rl.pipeline.run import main
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.trainers.cold_start import ColdStartTrainer

GIB = 2**30
FULL = ["model=llada_8b", "cold_start.lora.r=0", "rl.lora.r=0"]


def warnings(monkeypatch, free, *words, device="cpu", stages=None):
    monkeypatch.setattr(model_memory, "free_memory", lambda device: free)
    monkeypatch.setattr(
        "weft_rl.pipeline.memory_warnings.find_device", lambda name: torch.device(device)
    )
    config = load_run_config(words, command="it")
    return memory_warnings(config, stages or config.trained)


def test_full_fine_tuning_of_8b_on_an_h100(monkeypatch):
    """8.02e9 parameters: 29.86 GiB of float32 weights, twice that of Adam's moments."""
    lines = warnings(monkeypatch, 79.1 * GIB, *FULL, device="cuda:0")
    for line, stage, block in zip(lines, ("weft", "rl"), ("cold_start", "rl"), strict=True):
        assert line.startswith(f"stage {stage} ")
        assert "79.10 GiB" in line
        assert f"{block}.lora.r=128" in line
    (line,) = warnings(monkeypatch, 0, *FULL, stages=["rl"])
    assert line.startswith("stage rl ")
    for device, advised in (("cuda", True), ("cpu", False)):
        lines = warnings(monkeypatch, 0, "model=llada_8b", device=device)
        assert any("nf4" in line for line in lines) == advised


@pytest.mark.parametrize(
    ("free", "words", "launcher"),
    [
        (0.25 * GIB, ["model=tiny"], None),  # it fits
        *((0, FULL, "ACCELERATE_USE_FSDP"), (0, FULL, "ACCELERATE_USE_DEEPSPEED")),
        (0, ["model=owner/name", "preset=tiny"], None),
        (None, FULL, None),  # free memory is unknown
    ],
)
def test_no_warning(monkeypatch, free, words, launcher):
    if launcher:
        monkeypatch.setenv(launcher, "true")
    assert warnings(monkeypatch, free, *words) == []


def test_free_memory_of_a_gpu_includes_what_torch_has_reserved(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert model_memory.free_memory(torch.device("cuda:0")) == 50


@pytest.mark.slow
def test_a_run_that_runs_out_of_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    words = "base.max_steps=1 base.batch_size=4 base.examples=8 cold_start.records=12 "
    words += "cold_start.epochs=1 cold_start.batch_size=4 cold_start.save_steps=1 "
    words = [*f"{words}stages=[sft] eval.after_each=false".split(), f"out={out}"]
    step = ColdStartTrainer.compute_loss

    def greedy(self, *arguments, **named):
        if self.state.global_step == 2:  # the base has one step
            torch.empty(10**15)
        return step(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ColdStartTrainer, "compute_loss", greedy)
        # the weights fit, 0.6 MB; training them does not
        patch.setattr(model_memory, "free_memory", lambda device: 700_000)
        assert execute("weft_rl.pipeline", main, words) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    assert sum("stage sft may run out" in line for line in lines) == 1
    assert lines[-1].startswith("weft_rl.pipeline: stage sft: cpu ")
    assert "memory.gradient_checkpointing=true, cold_start.batch_size=1" in lines[-1]
    assert f"out={out}" in lines[-1]  # the way to resume
    # it resumes once there is more memory
    assert newest_checkpoint(out, "sft").name == "step-2"
    assert execute("weft_rl.pipeline", main, words) == 0
    assert "memory" not in capsys.readouterr().err


def advice(stage, error=None, model="llada_8b"):
    config = load_run_config([f"model={model}", "preset=tiny"], command="it")
    with pytest.raises(OutOfMemory) as caught, advise_on_out_of_memory(config, stage, "out=a"):
        raise error or MemoryError
    return caught.value


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
    raised = advice("rl", error)
    assert raised.__cause__ is error
    assert (str(error).splitlines() or ["MemoryError"])[0] in str(raised)
    assert "and more" not in str(raised)
    assert "out=a" in str(raised)
    assert "memory.gradient_checkpointing=true, rl.lora.r=128" in str(raised)
    for stage, model, text in (
        ("eval", "llada_8b", "eval.batch_size="),
        ("base", "tiny", "base.batch_size=1"),
        ("rl", "owner/name", "weft-rl plan"),
    ):
        assert text in str(advice(stage, model=model))


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError("shapes do not fit"), UserError("a mistake"), Interrupted("stopped")),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_other_errors_pass_through(error):
    config = load_run_config(["model=llada_8b", "preset=tiny"], command="it")
    with pytest.raises(type(error)) as caught, advise_on_out_of_memory(config, "rl", ""):
        raise error
    assert caught.value is error


def test_loading_does_not_blame_the_files(tmp_path, monkeypatch):
    folder, _ = llada_folder(tmp_path / "a")

    def fail(*arguments, **named):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(loading, "_load_streamed", fail)
    with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator"):
        loading.load_model(str(folder), torch.device("cpu"), torch.float32)
