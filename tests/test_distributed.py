"""Two processes train what one does."""

import json

import cold_start_process
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close
from torchrun import launch


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        words = (cold_start_process.__file__, tmp_path / name, "weft_exact", 4 // processes)
        status, complaints = launch(*words, processes=processes)
        assert status == 0, complaints
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two"))
    # five steps of 0.1 along a gradient of norm 1 have moved the weights some 1e-1
    assert_close(two, one, atol=1e-5, rtol=0)
    told = [json.loads((tmp_path / n / "log.json").read_text()) for n in ("one", "two")]
    assert {"token_entropy", "mask_fraction", "beta_ref"} <= told[0]["lines"][0].keys()
    assert_close(told[1]["lines"], told[0]["lines"], atol=1e-4, rtol=1e-4)
    # two epochs and the first step of a third, and no record twice in one
    assert_close(sorted(told[1]["tokens"]), sorted(told[0]["tokens"]), atol=1e-4, rtol=1e-4)
