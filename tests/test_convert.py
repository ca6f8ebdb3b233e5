"""Checkpoints from layout to layout: the same bits, the same function, and what is refused."""

import os
import subprocess
import sys

import pytest
import torch
from adapters import adapter, change_config, load, some_ids
from run_folders import flip
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import LlamaForCausalLM, Qwen2ForCausalLM
from upstream_checkpoint import dream_folder, llada_folder, write_folder

from weft_rl.checkpoints.safetensors_index import INDEX
from weft_rl.config.schema import BaseConfig
from weft_rl.convert import SUMS, convert, main
from weft_rl.errors import UserError
from weft_rl.families import read_config
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import tiny_config
from weft_rl.runs.checksums import write_checksums

BIG = 10**9


def read(folder):
    """All tensors of a folder, by the safetensors library."""
    parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    tensors = {name: tensor for part in parts for name, tensor in part.items()}
    assert len(tensors) == sum(map(len, parts))
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 3])
def test_there_and_back_no_bit_changes(tmp_path, dtype, shards):
    source, tensors = llada_folder(tmp_path / "a", dtype, shards)
    # bit patterns that any arithmetic would change
    norm = tensors["model.transformer.ln_f.weight"]
    norm[:3] = torch.tensor([float("nan"), -0.0, torch.finfo(dtype).smallest_normal / 4])
    write_folder(tmp_path / "w", read_config(source), tensors, shards)
    there = convert(tmp_path / "w", tmp_path / "b", "transformers", 20_000)
    back = convert(tmp_path / "b", tmp_path / "c", "upstream", 9_000)
    assert (there.tensors, there.digest) == (30, back.digest)
    assert back.files > 1
    result = read(tmp_path / "c")
    assert result.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert result[name].dtype == dtype
        assert torch.equal(result[name].view(torch.uint8), tensor.view(torch.uint8)), name
    old, new = read_config(source), read_config(tmp_path / "c")
    assert old | {"auto_map": 0} == {key: new[key] for key in old} | {"auto_map": 0}
    # a missing dropout is 0.1 in upstream's class
    assert [new[f"{kind}_dropout"] for kind in ("attention", "residual", "embedding")] == [0, 0, 0]
    # another weight, another digest
    tensors["model.transformer.blocks.1.ff_out.weight"][0, 0] += 0.1
    write_folder(tmp_path / "w2", read_config(source), tensors, shards)
    assert convert(tmp_path / "w2", tmp_path / "b2", "transformers", BIG).digest != there.digest


MAKERS = [(llada_folder, LlamaForCausalLM, 0), (dream_folder, Qwen2ForCausalLM, 1)]


@pytest.mark.parametrize(("make", "kind", "shift"), MAKERS)
def test_transformers_class_computes_the_same_and_comes_back(tmp_path, make, kind, shift):
    """Llama and Qwen2 with `is_causal` off, loaded without anything of this package, are LLaDA and
    Dream, whose output at i - 1 predicts i."""
    source, tensors = make(tmp_path / "a")
    convert(source, tmp_path / "b", "transformers", 20_000)
    ids = some_ids()
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    ours, theirs = load(source).eval(), kind.from_pretrained(tmp_path / "b", dtype=torch.float32)
    theirs.eval()
    with torch.no_grad():
        expected = theirs(ids).logits[:, : 9 - shift]
        assert expected.abs().max() > 1
        assert_close(ours(ids).logits[:, shift:], expected, atol=2e-5, rtol=1e-5)
        logits, expected = ours(ids, mask).logits, theirs(ids, attention_mask=mask).logits
        expected = expected[:, 3 : 9 - shift]
        assert_close(logits[:, 3 + shift :], expected, atol=2e-5, rtol=1e-5)
    theirs.save_pretrained(tmp_path / "c")
    for number, place in enumerate("bc"):
        convert(tmp_path / place, tmp_path / f"back-{number}", "upstream", BIG)
        result = read(tmp_path / f"back-{number}")
        assert result.keys() == tensors.keys()
        assert all(torch.equal(result[name], tensors[name]) for name in tensors)
        assert read_config(tmp_path / f"back-{number}")["rope_theta"] == 50.0


@pytest.mark.parametrize("to", ["upstream", "transformers"])
def test_learned_positions_exist_in_neither_layout(tmp_path, to):
    fresh_model(tiny_config(BaseConfig()), 0).save_pretrained(tmp_path / "a")
    with pytest.raises(UserError, match="learned positions"):
        convert(tmp_path / "a", tmp_path / "b", to, BIG)
    assert not (tmp_path / "b").exists()


def test_the_checksums_are_sha256sums_and_verified(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    (source / "more").mkdir()
    (source / "more" / "part").write_text("1")
    write_checksums(source)
    convert(source, tmp_path / "b", "transformers", 9_000)
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path / "b", check=False)
    assert done.returncode == 0
    shard = sorted((tmp_path / "b").glob("*.safetensors"))[1]
    flip(shard)
    with pytest.raises(UserError, match=f"{shard.name} .*checksum"):
        convert(tmp_path / "b", tmp_path / "c", "upstream", BIG)
    (source / "more" / "part").write_text("2")
    with pytest.raises(UserError, match=r"more/part .*checksum"):
        convert(source, tmp_path / "c", "transformers", BIG)
    (source / SUMS).write_text(f"{'0' * 64}  ../b/config.json\n")
    with pytest.raises(UserError, match=r"\.\./b/config\.json"):
        convert(source, tmp_path / "c", "transformers", BIG)
    with pytest.raises(UserError, match=f"out={tmp_path / 'b'}"):
        main([str(source), f"out={tmp_path / 'b'}"])


def test_a_flipped_bit_is_detected_before_weights_are_loaded(tmp_path, monkeypatch):
    """Other files may be absent, as a run's training state, or edited."""
    source, _ = llada_folder(tmp_path / "a")
    folder = tmp_path / "b"
    convert(source, folder, "upstream", BIG)
    state = [folder / "token_entropy_0.safetensors", folder / "original/consolidated.safetensors"]
    for path in state:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"training's")
    write_checksums(folder)
    for path in state:
        path.unlink()
    change_config(folder, "config.json", eot_token_id=3)
    load(folder)
    flip(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors .*checksum"):
        load(folder)
    # the first process of a machine verifies for all
    monkeypatch.setenv("LOCAL_RANK", "1")
    load(folder)


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    source, _ = llada_folder(tmp_path / "a")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        convert(source, tmp_path / "b", "transformers", BIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_an_adapter_on_transformers_layout(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    folder = adapter(source, tmp_path / "one", 1)
    convert(source, tmp_path / "b", "transformers", BIG)
    change_config(folder, base_model_name_or_path=str(tmp_path / "b"))
    with pytest.raises(UserError, match=r"one: .*transformers"):
        convert(folder, tmp_path / "c", "upstream", BIG)
    with pytest.raises(UserError, match="to=upstream"):
        load(folder)


# Peak resident memory of a conversion beyond what Python and the imports take, in KiB. Not
# getrusage's, which begins with the peak of the parent process.
MEASURE = """
import re, sys
from pathlib import Path
from weft_rl.convert import convert
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]), "transformers", 64 * 2**20)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """90 MB with tensors of 33 MB in shards of more: a buffer's worth of memory."""
    sizes = {"d_model": 256, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 1024, "n_layers": 5}
    rows = {"vocab_size": 32768, "embedding_size": 32768}
    source, tensors = llada_folder(tmp_path / "a", **rows, **sizes)
    assert sum(tensor.nbytes for tensor in tensors.values()) > 80e6
    command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / "b")]
    assert 1024 * int(subprocess.check_output(command, text=True)) < 24e6 < 33e6
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == 2
    assert (tmp_path / "b" / INDEX).exists()
