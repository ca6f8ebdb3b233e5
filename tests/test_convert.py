"""Checkpoints from layout to layout: the same bits, the same function, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from adapters import adapter, change_config, load
from safetensors import safe_open
from torch.testing import assert_close
from transformers import LlamaForCausalLM
from upstream_checkpoint import dream_folder, llada_folder, write_folder

from weft_rl.checkpoints.safetensors_index import INDEX
from weft_rl.config.schema import BaseConfig
from weft_rl.convert import SUMS, convert, main
from weft_rl.errors import UserError
from weft_rl.families import read_config
from weft_rl.models import LLaDAForMaskedLM
from weft_rl.models.toy import tiny_config
from weft_rl.runs.checksums import write_checksums

BIG = 10**9


def read(folder):
    """All tensors of a folder, by the safetensors library and not by ours."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in list(file.keys()):
                assert name not in tensors
                tensors[name] = file.get_tensor(name)
    return tensors


def flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


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


def test_transformers_class_computes_the_same(tmp_path):
    """Llama with `is_causal` off, loaded without anything of this package, is LLaDA."""
    source, _ = llada_folder(tmp_path / "a")
    convert(source, tmp_path / "b", "transformers", 20_000)
    ids = torch.randint(2, 52, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    ours = load(source).eval()
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(ids).logits
        assert expected.abs().max() > 1
        assert_close(ours(ids).logits, expected, atol=2e-5, rtol=1e-5)
        logits, expected = ours(ids, mask).logits, theirs(ids, attention_mask=mask).logits
        assert_close(logits[:, 3:], expected[:, 3:], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("to", ["upstream", "transformers"])
def test_learned_positions_exist_in_neither_layout(tmp_path, to):
    """Upstream's forward refuses them, and transformers' class has no table for them."""
    model = LLaDAForMaskedLM(tiny_config(BaseConfig(hidden_size=16, intermediate_size=32)))
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(UserError, match="learned positions"):
        convert(tmp_path / "a", tmp_path / "b", to, BIG)
    assert not (tmp_path / "b").exists()


def test_dream_keeps_its_names(tmp_path):
    source, tensors = dream_folder(tmp_path / "a", torch.bfloat16)
    convert(source, tmp_path / "b", "transformers", BIG)
    convert(tmp_path / "b", tmp_path / "c", "upstream", BIG)
    assert read_config(tmp_path / "b")["model_type"] == "qwen2"
    assert read_config(tmp_path / "c")["rope_theta"] == 50.0
    result = read(tmp_path / "c")
    assert result.keys() == tensors.keys()
    assert all(torch.equal(result[name], tensors[name]) for name in tensors)


def test_the_checksums_are_sha256sums(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    convert(source, tmp_path / "b", "transformers", 9_000)
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path / "b", check=False)
    assert done.returncode == 0
    shard = sorted((tmp_path / "b").glob("*.safetensors"))[1]
    flip_last_bit(shard)
    with pytest.raises(UserError, match=f"{shard.name} .*checksum"):
        convert(tmp_path / "b", tmp_path / "c", "upstream", BIG)
    assert not (tmp_path / "c").exists()


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
    flip_last_bit(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors .*checksum"):
        load(folder)
    # the first process of a machine verifies for all
    monkeypatch.setenv("LOCAL_RANK", "1")
    load(folder)


def test_checksums_of_files_in_folders(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    (source / "more").mkdir()
    (source / "more" / "part").write_text("1")
    write_checksums(source)
    convert(source, tmp_path / "b", "transformers", BIG)
    (source / "more" / "part").write_text("2")
    with pytest.raises(UserError, match=r"more/part .*checksum"):
        convert(source, tmp_path / "c", "transformers", BIG)
    (source / SUMS).write_text(f"{'0' * 64}  ../b/config.json\n")
    with pytest.raises(UserError, match=r"\.\./b/config\.json"):
        convert(source, tmp_path / "c", "transformers", BIG)


def test_tokenizer_files_are_copied_and_code_is_not(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    for name in ("tokenizer.json", "modeling_llada.py", "pytorch_model.bin", "merges.txt"):
        (source / name).write_text("{}")
    convert(source, tmp_path / "b", "transformers", BIG)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "merges.txt", SUMS)
    }


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    source, _ = llada_folder(tmp_path / "a")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        convert(source, tmp_path / "b", "transformers", BIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_the_command(tmp_path, capsys):
    source, _ = llada_folder(tmp_path / "a")
    assert main([str(source), f"out={tmp_path / 'b'}"]) == 0
    assert "30 tensors, 72864 bytes in 1 files" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"out={tmp_path / 'b'}"):
        main([str(source), f"out={tmp_path / 'b'}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type='bert'"),
        ({"d_model": None}, "d_model"),
        ({"rope_theta": None}, "rope_theta"),
        ({"n_kv_heads": 1}, "n_kv_heads=1"),
        ({"n_layers": "3"}, "n_layers='3'"),
        ({"n_layers": 2000}, "n_layers=2000"),
        ({"embedding_size": 64}, "embedding_size=64"),
        # a causal Llama is not LLaDA
        ({"model_type": "llama"}, "is_causal=false"),
    ],
)
def test_configurations_that_are_refused(tmp_path, changes, message):
    source, _ = llada_folder(tmp_path / "a")
    (source / "config.json").write_text(json.dumps(read_config(source) | changes))
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / "b", "transformers", BIG)


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
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source), str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 1024 * int(done.stdout) < 24e6 < 33e6
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == 2
    assert (tmp_path / "b" / INDEX).exists()
