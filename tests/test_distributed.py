"""Two processes train what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

SCRIPT = Path(__file__).parent / "helpers/cold_start_process.py"


def run(*command):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    run(SCRIPT, tmp_path / "one", "weft_exact", 4)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(*launcher, SCRIPT, tmp_path / "two", "weft_exact", 2)
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    # five steps of 0.1 along a gradient of norm 1 have moved the weights some 1e-1
    for name, weight in one.items():
        assert_close(two[name], weight, atol=1e-5, rtol=0)
    told = [json.loads((tmp_path / n / "log.json").read_text()) for n in ("one", "two")]
    assert {"token_entropy", "mask_fraction", "beta_ref"} <= told[0]["lines"][0].keys()
    assert_close(told[1]["lines"], told[0]["lines"], atol=1e-4, rtol=1e-4)
    # two epochs and the first step of a third, and no record twice in one
    assert_close(sorted(told[1]["tokens"]), sorted(told[0]["tokens"]), atol=1e-4, rtol=1e-4)
