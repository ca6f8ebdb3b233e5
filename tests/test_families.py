"""A further family as one file and one entry, from published weights to a cold start."""

from dataclasses import replace
from importlib import import_module

import pytest
from upstream_checkpoint import llada_with_tokenizer

from weft_rl import families
from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.families import FAMILIES, FAMILY, family_of, read_config
from weft_rl.families.a2d import A2D_LLAMA
from weft_rl.families.llada import LLADA
from weft_rl.pipeline.run import main

# The example of docs/models.md.
THIRD = replace(LLADA, name="third", model_types=("third",), published={})


@pytest.fixture
def third(monkeypatch):
    """The family with its entry in FAMILIES, registered with transformers."""
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, THIRD))
    models = import_module("weft_rl.models")
    models.register(THIRD)
    return THIRD


@pytest.mark.slow
@pytest.mark.usefixtures("third")
def test_a_third_family_is_one_entry(tmp_path):
    source = llada_with_tokenizer(tmp_path / "a", model_type="third", max_sequence_length=256)
    there = convert(source, tmp_path / "b", "transformers", 10**9)
    back = convert(tmp_path / "b", tmp_path / "c", "upstream", 10**9)
    assert there.digest == back.digest
    types = [read_config(tmp_path / name)["model_type"] for name in "abc"]
    assert types == ["third", "llama", "third"]
    few = ["cold_start.records=4", "cold_start.epochs=1", "cold_start.batch_size=2"]
    few += ["eval.after_each=false", "cold_start.lora.r=0"]
    out = tmp_path / "run"
    arguments = [f"model={tmp_path / 'c'}", "preset=tiny", "stages=[weft]", *few, f"out={out}"]
    assert main(arguments) == 0
    (last,) = (out / "checkpoints" / "weft").iterdir()
    assert read_config(last)["model_type"] == "third"


def test_two_families_of_one_class_are_told_apart(tmp_path, third):
    llada = {"model_type": "llama", "is_causal": False}
    assert family_of(llada | {FAMILY: "llada"}, tmp_path) == (LLADA, True)
    assert family_of(llada | {FAMILY: "third"}, tmp_path) == (third, True)
    with pytest.raises(UserError, match="diffusion_family='fourth'"):
        family_of(llada | {FAMILY: "fourth"}, tmp_path)
    # without a name it is a converted autoregressive model
    assert family_of(llada, tmp_path) == (A2D_LLAMA, True)
