"""Two processes that share weights, gradients and optimizer train what one does."""

import json
from importlib.util import find_spec

import pytest
import sharded_processes
import torch
from safetensors.torch import load_file
from sharded_processes import FEW, FORWARDS, RESUMED, RUNS, train_all
from torch.testing import assert_close
from torchrun import launch

from weft_rl.models import lm_head as head
from weft_rl.models.loading import load_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The runs of this process."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "LOGITS_TOGETHER", FEW)
        train_all(folder, 1)
    return folder


def shared(folder, kind):
    """The runs of two processes that share."""
    status, complaints = launch(sharded_processes.__file__, folder, kind)
    assert status == 0, complaints


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """FSDP2's runs."""
    folder = tmp_path_factory.mktemp("two")
    shared(folder, "fsdp2")
    return folder


def assert_equal_weights(one, two, name):
    found, wanted = (load_file(folder / f"{name}.safetensors") for folder in (two, one))
    assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_sharded_training_is_training(one, two, name):
    assert_equal_weights(one, two, name)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_deepspeeds_training_is_training(one, tmp_path, kind):
    shared(tmp_path, kind)
    for name in RUNS:
        assert_equal_weights(one, tmp_path, name)


def test_the_processes_rollouts_differed_in_length(two):
    """Or it would not have been shown that they need not wait for each other."""
    *_, full, adapted = json.loads((two / FORWARDS).read_text())
    assert full[0] != full[1]
    assert adapted[0] != adapted[1]


@pytest.mark.parametrize("name", RESUMED)
def test_a_sharded_run_resumes_to_the_bit_from_a_checkpoint_that_is_a_model(two, name):
    """Written by one process, whole; loaded without a launcher."""
    folder = two / f"{name}, again"
    first, second = (load_file(folder / f"{n}.safetensors") for n in ("first", "second"))
    assert_close(second, first, atol=0, rtol=0)
    place = folder / "checkpoints" / ("rl/step-4" if name.startswith("RL") else "weft/step-5")
    if "LoRA" in name:
        saved = load_file(place / "adapter_model.safetensors")
        first = {key.replace(".default", ""): value for key, value in first.items()}
    else:
        model = load_model(str(place), torch.device("cpu"), torch.float32)
        saved = dict(model.named_parameters())
    assert_close(saved, first, atol=0, rtol=0)
