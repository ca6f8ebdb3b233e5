"""Damaged, incomplete and hostile checkpoints, as the loader and the converter meet them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from upstream_checkpoint import LLADA_CONFIG, llada_folder, write_folder

from weft_rl.checkpoints.safetensors_index import INDEX, read_folder, read_header
from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.families import read_config
from weft_rl.models.loading import load_model
from weft_rl.models.memory import require_memory

CPU = torch.device("cpu")
NORM = "model.transformer.blocks.1.ff_norm.weight"
HEAD = "model.transformer.ff_out.weight"


def load(folder):
    return load_model(str(folder), CPU, torch.float32)


def rewrite(folder, change):
    """Change the tensors of a single-file checkpoint."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_shards_load_directly(tmp_path):
    folder, tensors = llada_folder(tmp_path / "a")
    state = load(folder).state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)


def test_ranges_are_the_librarys(tmp_path):
    folder, tensors = llada_folder(tmp_path / "a", torch.bfloat16)
    for name, item in read_folder(folder).items():
        with item.file.open("rb") as file:
            file.seek(item.start)
            content = file.read(item.length)
        assert content == tensors[name].view(torch.uint8).numpy().tobytes()
        assert item.shape == tuple(tensors[name].shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NORM), f"tensors are missing: {NORM}; copy all shards"),
        (lambda t: t.update(extra=torch.ones(2)), "tensors that the model does not have: extra;"),
        (
            lambda t: t.update({NORM: torch.ones(25)}),
            rf"{NORM} has shape \(25,\), not \(24,\) as config.json says",
        ),
        (
            # as many elements, turned over
            lambda t: t.update({HEAD: t[HEAD].T.contiguous()}),
            rf"{HEAD} has shape \(24, 52\), not \(52, 24\)",
        ),
    ],
)
def test_wrong_tensors_are_named(tmp_path, change, message):
    folder, _ = llada_folder(tmp_path / "a", shards=1)
    rewrite(folder, change)
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize("keep", [0, 7, 8, 200, -1])
def test_a_truncated_shard(tmp_path, keep):
    folder, _ = llada_folder(tmp_path / "a")
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model-00002-of-00003.safetensors: is cut short"):
        load(folder)


def test_a_missing_shard_and_none_at_all(tmp_path):
    folder, _ = llada_folder(tmp_path / "a")
    (folder / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00003-of-00003\.safetensors: cannot be read"):
        load(folder)
    (folder / INDEX).unlink()
    with pytest.raises(UserError, match=r"holds neither model\.safetensors nor"):
        load(folder)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "x/y.safetensors", "..", 3])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, name):
    folder, _ = llada_folder(tmp_path / "a")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][HEAD] = name
    (folder / INDEX).write_text(json.dumps(index))
    # there, so that only the rule keeps it from being read
    (tmp_path / "a.safetensors").write_bytes(
        (folder / "model-00001-of-00003.safetensors").read_bytes()
    )
    with pytest.raises(UserError, match="which is not beside it; not read"):
        load(folder)


def test_an_index_that_disagrees_with_a_shard(tmp_path):
    folder, _ = llada_folder(tmp_path / "a")
    index = json.loads((folder / INDEX).read_text())
    moved = index["weight_map"] | {"model.transformer.none": "model-00001-of-00003.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(UserError, match=r"is without model\.transformer\.none"):
        load(folder)
    del index["weight_map"][NORM]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"holds, unknown to the index, {NORM}"):
        load(folder)
    (folder / INDEX).write_text('{"weight_map": [')
    with pytest.raises(UserError, match="cannot be read"):
        load(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"[1]",
        b"{",
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}',
        b'{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":3}',
        b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,-8]}}',
    ],
)
def test_headers_that_make_no_sense(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    with pytest.raises(UserError, match=r"model\.safetensors"):
        read_header(path)


def test_weights_that_are_no_floats(tmp_path):
    folder, tensors = llada_folder(tmp_path / "a", shards=1)
    tensors[NORM] = tensors[NORM].to(torch.int8)
    write_folder(tmp_path / "b", read_config(folder), tensors)
    with pytest.raises(UserError, match=f"{NORM} holds I8, no floating-point numbers"):
        load(tmp_path / "b")
    with pytest.raises(UserError, match=f"{NORM} holds I8"):
        convert(tmp_path / "b", tmp_path / "c", "transformers", 10**9)


def test_code_beside_the_weights_is_not_run(tmp_path):
    folder, _ = llada_folder(tmp_path / "a")
    assert "auto_map" in LLADA_CONFIG
    flag = tmp_path / "ran"
    (folder / "modeling_llada.py").write_text(f"open({str(flag)!r}, 'w').write('x')")
    load(folder)
    assert not flag.exists()


def test_too_little_memory_is_said_before_loading(tmp_path, monkeypatch):
    folder, _ = llada_folder(tmp_path / "a")
    monkeypatch.setattr("weft_rl.models.memory.free_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"its weights take 0\.0 GiB as torch\.float32, and cpu"):
        load(folder)
    with pytest.raises(UserError, match=r"GiB as nf4, and cpu"):
        require_memory(folder, torch.bfloat16, torch.device("cpu"), nf4=True)


def test_four_bits_fit_where_sixteen_do_not(tmp_path, monkeypatch):
    folder, tensors = llada_folder(tmp_path / "a")
    halves = sum(2 * tensor.numel() for tensor in tensors.values())
    monkeypatch.setattr("weft_rl.models.memory.free_memory", lambda device: halves - 1)
    require_memory(folder, torch.bfloat16, torch.device("cpu"), nf4=True)
    with pytest.raises(UserError, match="bfloat16, and cpu"):
        require_memory(folder, torch.bfloat16, torch.device("cpu"))


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth", "model.gguf"],
)
def test_weights_in_another_format_are_named(tmp_path, name):
    folder, _ = llada_folder(tmp_path / "a", shards=1)
    (folder / "model.safetensors").rename(folder / name)
    for use in (load, lambda place: convert(place, tmp_path / "b", "upstream", 10**9)):
        with pytest.raises(UserError, match=f"{name}.*safetensors"):
            use(folder)


def test_a_file_that_git_has_not_fetched(tmp_path):
    folder, _ = llada_folder(tmp_path / "a", shards=1)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 72864\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(UserError, match="git lfs pull"):
        load(folder)
