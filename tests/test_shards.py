"""Damaged, incomplete and hostile weights, as the loader and the converter meet them."""

import json

import pytest
import torch
from adapters import CPU, load, refused
from safetensors.torch import load_file, save_file
from upstream_checkpoint import llada_folder

from weft_rl.checkpoints.safetensors_index import INDEX, read_folder, read_header
from weft_rl.errors import UserError
from weft_rl.models.memory import require_memory

NORM = "model.transformer.blocks.1.ff_norm.weight"
HEAD = "model.transformer.ff_out.weight"
SHARD = "model-00002-of-00003.safetensors"
SINGLE = "model.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shards_load_directly_and_their_ranges_are_exact(tmp_path, dtype):
    folder, tensors = llada_folder(tmp_path / "a", dtype)
    state = load(folder).state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name].float()) for name in tensors)
    for name, item in read_folder(folder).items():
        content = item.file.read_bytes()[item.start : item.start + item.length]
        assert content == tensors[name].view(torch.uint8).numpy().tobytes()
        assert item.shape == tuple(tensors[name].shape)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(NORM), NORM),
        (lambda t: t.update(extra=torch.ones(2)), "extra"),
        (lambda t: t.update({NORM: torch.ones(25)}), rf"{NORM}.*\(25,\).*\(24,\)"),
        # as many elements, transposed
        (lambda t: t.update({HEAD: t[HEAD].T.contiguous()}), rf"{HEAD}.*\(24, 52\).*\(52, 24\)"),
        (lambda t: t.update({NORM: t[NORM].to(torch.int8)}), f"{NORM}.*I8"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, change, match):
    folder, tensors = llada_folder(tmp_path / "a", shards=1)
    change(tensors)
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    refused(folder, match)


@pytest.mark.parametrize("keep", [None, 0, 7, 8, 200, -1])
def test_a_truncated_or_missing_shard(tmp_path, keep):
    folder, _ = llada_folder(tmp_path / "a")
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).unlink() if keep is None else (folder / SHARD).write_bytes(content[:keep])
    refused(folder, SHARD)
    if keep is None:
        (folder / INDEX).unlink()
        refused(folder, SINGLE)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "x/y.safetensors", "..", 3])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, name):
    folder, _ = llada_folder(tmp_path / "a")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][HEAD] = name
    (folder / INDEX).write_text(json.dumps(index))
    # exists, so that only the rule protects it
    (tmp_path / "a.safetensors").write_bytes((folder / SHARD).read_bytes())
    refused(folder, f"{INDEX}.*{name!r}")


def test_an_index_that_disagrees_with_its_shards(tmp_path):
    folder, _ = llada_folder(tmp_path / "a")
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    added = weight_map | {"model.transformer.none": SHARD}
    removed = {name: file for name, file in weight_map.items() if name != NORM}
    other = next(file for file in weight_map.values() if file != weight_map[NORM])
    moved = weight_map | {NORM: other}
    for changed, match in ((added, r"model\.transformer\.none"), (removed, NORM), (moved, NORM)):
        (folder / INDEX).write_text(json.dumps({"weight_map": changed}))
        refused(folder, f"{INDEX}.*{match}")
    # one tensor in two shards
    save_file(load_file(folder / other) | {NORM: torch.ones(24)}, folder / other)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, f"{INDEX}.*{NORM}")
    for text in ('{"weight_map": [', "[]", "{}", '{"weight_map": 3}'):
        (folder / INDEX).write_text(text)
        refused(folder, INDEX)


@pytest.mark.parametrize(
    "header",
    [
        *(b"[1]", b"{", b'{"a":3}', b'{"a":' * 10_000),
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}',
        b'{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,-8]}}',
    ],
)
def test_headers_that_make_no_sense(tmp_path, header):
    path = tmp_path / SINGLE
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    with pytest.raises(UserError, match=SINGLE):
        read_header(path)


def test_too_little_memory_is_reported_before_loading(tmp_path, monkeypatch):
    """4 bits fit where 16 do not."""
    folder, tensors = llada_folder(tmp_path / "a")
    halves = sum(2 * tensor.numel() for tensor in tensors.values())
    monkeypatch.setattr("weft_rl.models.memory.free_memory", lambda device: halves - 1)
    with pytest.raises(UserError, match="float32"):
        load(folder)
    with pytest.raises(UserError, match="bfloat16"):
        require_memory(folder, torch.bfloat16, CPU)
    require_memory(folder, torch.bfloat16, CPU, nf4=True)
    monkeypatch.setattr("weft_rl.models.memory.free_memory", lambda device: 1000)
    with pytest.raises(UserError, match="nf4"):
        require_memory(folder, torch.bfloat16, CPU, nf4=True)


OTHERS = ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"]


@pytest.mark.parametrize("name", [*OTHERS, "model.gguf", "a pointer"])
def test_weights_in_another_format_are_named(tmp_path, name):
    """And a file that git has not fetched."""
    folder, _ = llada_folder(tmp_path / "a", shards=1)
    if name == "a pointer":
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 72864\n"
        (folder / SINGLE).write_text(pointer)
        refused(folder, "git lfs pull")
    else:
        (folder / SINGLE).rename(folder / name)
        refused(folder, f"{name}.*safetensors")
