"""Two processes train what one does."""

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch.testing import assert_close

SCRIPT = Path(__file__).with_name("cold_start_process.py")


def run(*command):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_two_processes_equal_one(tmp_path):
    run(SCRIPT, tmp_path / "one", "weft_exact", 4)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(*launcher, SCRIPT, tmp_path / "two", "weft_exact", 2)
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    # five steps of 0.1 along a gradient of norm 1 have moved the weights some 1e-1
    for name, weight in one.items():
        assert_close(two[name], weight, atol=1e-5, rtol=1e-4)
