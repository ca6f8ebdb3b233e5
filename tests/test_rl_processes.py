"""The number of processes changes nothing: two of them by torchrun on CPU, against this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rl_processes import RUNS, results
from torch.testing import assert_close

HERE = Path(__file__).parent


def torchrun(port, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    paths = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, f"--master_port={port}", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    done = torchrun(29571, str(HERE / "rl_processes.py"), str(folder), "2")
    assert done.returncode == 0, done.stderr[-3000:]
    return results(folder / "one", 1), torch.load(folder / "of-2.pt", weights_only=True)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_learn_what_one_does(both, name):
    one, two = (found[name] for found in both)
    assert len(one["logs"]) == 6
    assert_close(torch.tensor(two["logs"]), torch.tensor(one["logs"]), atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(one["gradients"], two["gradients"], strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, other, atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(one["weights"], two["weights"], strict=True):
        assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
