"""Checkpoints from layout to layout: the same bits, the same function, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close
from transformers import LlamaForCausalLM
from upstream_checkpoint import DREAM_CONFIG, llada_folder, random_tensors, write_folder

from weft_rl.checkpoints.safetensors_index import INDEX
from weft_rl.config.model import LoraConfig
from weft_rl.config.schema import BaseConfig
from weft_rl.convert import SUMS, convert, main
from weft_rl.errors import UserError
from weft_rl.families.dream import DREAM
from weft_rl.families.registry import read_config
from weft_rl.models import LLaDAForMaskedLM
from weft_rl.models.loading import load_model, with_lora
from weft_rl.models.toy import tiny_config
from weft_rl.runs.checksums import write_checksums

CPU = torch.device("cpu")


def read(folder):
    """All tensors of a folder, by the safetensors library and not by ours."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in list(file.keys()):
                assert name not in tensors
                tensors[name] = file.get_tensor(name)
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 3])
def test_there_and_back_no_bit_changes(tmp_path, dtype, shards):
    source, tensors = llada_folder(tmp_path / "a", dtype, shards)
    # bit patterns that any arithmetic would change
    weird = tensors["model.transformer.ln_f.weight"]
    weird[:3] = torch.tensor([float("nan"), -0.0, torch.finfo(dtype).smallest_normal / 4])
    write_folder(tmp_path / "w", read_config(source), tensors, shards)
    there = convert(tmp_path / "w", tmp_path / "b", "transformers", 20_000)
    back = convert(tmp_path / "b", tmp_path / "c", "upstream", 9_000)
    assert (there.tensors, there.digest) == (30, back.digest)
    assert back.files > 1
    found = read(tmp_path / "c")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_the_digest_tells_two_checkpoints_apart(tmp_path):
    source, tensors = llada_folder(tmp_path / "a")
    tensors["model.transformer.blocks.1.ff_out.weight"][0, 0] += 1e-6
    write_folder(tmp_path / "b", read_config(source), tensors)
    digests = {
        convert(tmp_path / name, tmp_path / f"{name}2", "transformers", 10**9).digest
        for name in "ab"
    }
    assert len(digests) == 2


def test_transformers_own_class_computes_the_same(tmp_path):
    """Llama with `is_causal` off, loaded without anything of this package, is LLaDA."""
    source, _ = llada_folder(tmp_path / "a")
    convert(source, tmp_path / "b", "transformers", 20_000)
    ids = torch.randint(2, 52, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    ours = load_model(str(source), CPU, torch.float32).eval()
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(ids).logits
        assert wanted.abs().max() > 1
        assert_close(ours(ids).logits, wanted, atol=2e-5, rtol=1e-5)
        found, wanted = ours(ids, mask).logits, theirs(ids, attention_mask=mask).logits
        assert_close(found[:, 3:], wanted[:, 3:], atol=2e-5, rtol=1e-5)


def test_upstreams_configuration_comes_back(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    convert(source, tmp_path / "b", "transformers", 10**9)
    convert(tmp_path / "b", tmp_path / "c", "upstream", 10**9)
    old, new = read_config(source), read_config(tmp_path / "c")
    assert {key: new[key] for key in old if key != "auto_map"} == {
        key: value for key, value in old.items() if key != "auto_map"
    }
    # a missing dropout is 0.1 in upstream's class
    assert [new[f"{kind}_dropout"] for kind in ("attention", "residual", "embedding")] == [0, 0, 0]


@pytest.mark.parametrize("to", ["upstream", "transformers"])
def test_learned_positions_have_no_form_in_other_classes(tmp_path, to):
    """Upstream's forward refuses them, and transformers' class has no table for them."""
    model = LLaDAForMaskedLM(tiny_config(BaseConfig(hidden_size=16, intermediate_size=32)))
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(UserError, match="learned positions"):
        convert(tmp_path / "a", tmp_path / "b", to, 10**9)
    assert not (tmp_path / "b").exists()


def test_dream_keeps_its_names(tmp_path):
    shapes = {spec.upstream: spec.shape for spec in DREAM.tensors(DREAM.sizes(DREAM_CONFIG))}
    write_folder(tmp_path / "a", DREAM_CONFIG, random_tensors(shapes, torch.bfloat16))
    convert(tmp_path / "a", tmp_path / "b", "transformers", 10**9)
    convert(tmp_path / "b", tmp_path / "c", "upstream", 10**9)
    assert read_config(tmp_path / "b")["model_type"] == "qwen2"
    assert read_config(tmp_path / "c")["rope_theta"] == 50.0
    one, other = read(tmp_path / "a"), read(tmp_path / "c")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_sums_are_sha256sum_s(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    convert(source, tmp_path / "b", "transformers", 9_000)
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path / "b", check=False)
    assert done.returncode == 0
    shard = tmp_path / "b" / sorted(p.name for p in (tmp_path / "b").glob("*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard.name} does not match its checksum"):
        convert(tmp_path / "b", tmp_path / "c", "upstream", 10**9)
    assert not (tmp_path / "c").exists()


def test_a_flipped_bit_is_seen_before_weights_are_loaded(tmp_path, monkeypatch, capsys):
    source, _ = llada_folder(tmp_path / "a")
    folder = tmp_path / "b"
    convert(source, folder, "upstream", 10**9)
    write_checksums(folder)
    load_model(str(folder), CPU, torch.float32)
    # what is no weight may be put right by hand
    (folder / "config.json").write_text(json.dumps(read_config(folder) | {"eot_token_id": 3}))
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr("weft_rl.runs.checksums._LARGE", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(UserError, match=r"model\.safetensors does not match its checksum; copy"):
        load_model(str(folder), CPU, torch.float32)
    assert f"{folder}: checking 0 GiB against SHA256SUMS ..." in capsys.readouterr().err
    # of a machine's processes the first one looks, for all
    monkeypatch.setenv("LOCAL_RANK", "1")
    load_model(str(folder), CPU, torch.float32)


def test_files_that_are_no_weights_need_not_come_along(tmp_path):
    """A run's checkpoint has files of its training, in the same format, and sums of them."""
    folder, _ = llada_folder(tmp_path / "a")
    for name in ("token_entropy_0.safetensors", "original/consolidated.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"training's")
    write_checksums(folder)
    (folder / "token_entropy_0.safetensors").unlink()
    (folder / "original/consolidated.safetensors").unlink()
    loaded = load_model(str(folder), CPU, torch.float32)
    # and the weights themselves are still looked at
    assert sum(weight.numel() for weight in loaded.parameters()) > 0
    weights = next(folder.glob("model*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="does not match its checksum"):
        load_model(str(folder), CPU, torch.float32)


def test_a_flipped_bit_of_an_adapter_is_seen(tmp_path):
    base, _ = llada_folder(tmp_path / "base")
    model, folder = load_model(str(base), CPU, torch.float32), tmp_path / "run" / "step-1"
    with_lora(model, LoraConfig(2, targets=["q_proj"]), str(base), folder).save_pretrained(folder)
    write_checksums(folder)
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors does not match its checksum"):
        load_model(str(folder), CPU, torch.float32)


def test_sums_of_files_in_folders(tmp_path):
    """As a checkpoint has them beside which something else keeps its own."""
    source, _ = llada_folder(tmp_path / "a")
    (source / "more").mkdir()
    (source / "more" / "part").write_text("1")
    write_checksums(source)
    convert(source, tmp_path / "b", "transformers", 10**9)
    (source / "more" / "part").write_text("2")
    with pytest.raises(UserError, match=r"more/part does not match its checksum"):
        convert(source, tmp_path / "c", "transformers", 10**9)
    (source / SUMS).write_text(f"{'0' * 64}  ../b/config.json\n")
    with pytest.raises(UserError, match=r"names ../b/config.json, which is outside of"):
        convert(source, tmp_path / "c", "transformers", 10**9)


def test_tokenizer_files_go_along_and_code_does_not(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    for name in ("tokenizer.json", "modeling_llada.py", "pytorch_model.bin", "merges.txt"):
        (source / name).write_text("{}")
    convert(source, tmp_path / "b", "transformers", 10**9)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "merges.txt", SUMS)
    }


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    source, _ = llada_folder(tmp_path / "a")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        convert(source, tmp_path / "b", "transformers", 10**9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_the_command(tmp_path, capsys):
    source, _ = llada_folder(tmp_path / "a")
    assert main([str(source), f"out={tmp_path / 'b'}"]) == 0
    assert "30 tensors, 72864 bytes in 1 files" in capsys.readouterr().out
    with pytest.raises(UserError, match="is there already"):
        main([str(source), f"out={tmp_path / 'b'}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type='bert': no such family"),
        ({"d_model": None}, "d_model is missing"),
        ({"rope_theta": None}, "rope_theta is missing"),
        ({"n_kv_heads": 1}, "n_kv_heads=1: must be 3"),
        ({"n_layers": "3"}, "n_layers='3': must be a positive whole number"),
        ({"embedding_size": 64}, "embedding_size=64: must be vocab_size=52"),
    ],
)
def test_a_configuration_that_does_not_say_enough(tmp_path, changes, message):
    source, _ = llada_folder(tmp_path / "a")
    config = read_config(source) | changes
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / "b", "transformers", 10**9)


def test_a_causal_llama_is_not_taken_for_llada(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    convert(source, tmp_path / "b", "transformers", 10**9)
    config = read_config(tmp_path / "b")
    del config["is_causal"]
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is_causal=false"):
        convert(tmp_path / "b", tmp_path / "c", "upstream", 10**9)


# Peak resident memory of a conversion beyond what Python and the imports take, in KiB. Not
# getrusage's: that one begins with the peak of the process that started this one.
MEASURE = """
import re, sys
from pathlib import Path
from weft_rl.convert import convert
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]), "transformers", 64 * 2**20)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """150 MB with tensors of 50 MB in shards of more: a buffer's worth of memory."""
    sizes = {"d_model": 384, "n_heads": 6, "n_kv_heads": 6, "mlp_hidden_size": 1536, "n_layers": 5}
    rows = {"vocab_size": 32768, "embedding_size": 32768}
    source, tensors = llada_folder(tmp_path / "a", **rows, **sizes)
    total = sum(tensor.nbytes for tensor in tensors.values())
    assert total > 130e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source), str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=True,
    )
    largest = max(path.stat().st_size for path in source.glob("*.safetensors"))
    assert 1024 * int(done.stdout) < 40e6 < 50e6 < largest
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == 3
    assert (tmp_path / "b" / INDEX).exists()
