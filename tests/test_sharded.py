"""Two processes that share weights, gradients and optimizer (FSDP2) train what one does."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_processes
import torch
from safetensors.torch import load_file
from sharded_processes import FEW, RESUMED, RUNS, train_all
from torch.testing import assert_close

from weft_rl.models import head
from weft_rl.models.loading import load_model


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The runs of this process, of two that share, and what the latter say of their forwards."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "LOGITS_TOGETHER", FEW)
        train_all(one, 1)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [sys.executable, *launcher, sharded_processes.__file__, str(two)]
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root},
    )
    try:
        said, complaints = process.communicate(timeout=600)
    finally:
        process.terminate()  # the launcher ends the processes that it started
        process.wait()
    assert process.returncode == 0, complaints
    return one, two, said


@pytest.mark.parametrize("name", RUNS)
def test_sharded_training_is_training(runs, name):
    one, two = (load_file(folder / f"{name}.safetensors") for folder in runs[:2])
    assert one.keys() == two.keys()
    assert_close(two, one, atol=1e-5, rtol=1e-5)


def test_the_processes_rollouts_differed_in_length(runs):
    """Or it would not have been shown that they need not wait for each other."""
    counts = next(line for line in runs[2].splitlines() if line.startswith("[["))
    *_, full, adapted = ast.literal_eval(counts)
    assert full[0] != full[1]
    assert adapted[0] != adapted[1]


@pytest.mark.parametrize("name", RESUMED)
def test_a_sharded_run_resumes_to_the_bit(runs, name):
    first, second = (
        load_file(runs[1] / f"{name}, again" / f"{which}.safetensors")
        for which in ("first", "second")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", RESUMED)
def test_a_sharded_runs_checkpoint_is_a_model(runs, name):
    """Written by one process, whole; loaded without a launcher."""
    folder = runs[1] / f"{name}, again"
    stage, step = ("rl", 4) if name.startswith("RL") else ("weft", 5)
    place = folder / "checkpoints" / stage / f"step-{step}"
    kept = load_file(folder / "first.safetensors")
    if "LoRA" in name:
        saved = load_file(place / "adapter_model.safetensors")
        assert_close(
            saved, {key.replace(".default", ""): kept[key] for key in kept}, atol=0, rtol=0
        )
    else:
        model = load_model(str(place), torch.device("cpu"), torch.float32)
        assert_close(dict(model.named_parameters()), kept, atol=0, rtol=0)
