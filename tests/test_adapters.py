"""Adapters merged into whole checkpoints and models, against PEFT's own merge."""

import json
import os
import subprocess
import sys

import pytest
import torch
from allocations import allocated
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import LlamaForCausalLM
from upstream_checkpoint import llada_folder

from weft_rl.config.model import LoraConfig
from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model, with_lora
from weft_rl.runs.checksums import write_checksums

CPU = torch.device("cpu")
WEIGHTS = "adapter_model.safetensors"


def adapter(base, folder, seed, targets=("q_proj", "ff_out")):
    """An adapter whose update is not zero, saved where a stage would save it."""
    model = load_model(str(base), CPU, torch.float32)
    adapted = with_lora(model, LoraConfig(3, 6, targets=list(targets)), str(base), folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3, generator=generator)
    adapted.save_pretrained(folder)
    return folder


def test_a_fresh_adapter_is_drawn_from_the_seed_alone(tmp_path):
    source, _ = llada_folder(tmp_path / "a")

    def drawn(seed, before):
        torch.manual_seed(before)
        model = load_model(str(source), CPU, torch.float32)
        state = torch.random.get_rng_state()
        made = with_lora(model, LoraConfig(2, targets=["q_proj"]), str(source), tmp_path, seed)
        assert torch.random.get_rng_state().equal(state)
        return torch.cat([w.flatten() for name, w in made.named_parameters() if "lora_A" in name])

    assert drawn(5, before=1).equal(drawn(5, before=2))
    assert not drawn(5, before=1).equal(drawn(6, before=1))


def by_peft(base, folder):
    model = PeftModel.from_pretrained(load_model(str(base), CPU, torch.float32), str(folder))
    return model.merge_and_unload()


def some_ids():
    return torch.randint(2, 52, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("to", ["upstream", "transformers"])
def test_a_merged_export_computes_what_the_adapter_does(tmp_path, to):
    source, _ = llada_folder(tmp_path / "a")
    folder = adapter(source, tmp_path / "run" / "step", 1)
    convert(folder, tmp_path / "merged", to, 20_000)
    ids = some_ids()
    with torch.no_grad():
        wanted = by_peft(source, folder).eval()(ids).logits
        loaded = load_model(str(folder), CPU, torch.float32)(ids).logits
        before = load_model(str(source), CPU, torch.float32).eval()(ids).logits
        if to == "upstream":
            merged = load_model(str(tmp_path / "merged"), CPU, torch.float32)
        else:
            merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        found = merged.eval()(ids).logits
    assert (wanted - before).abs().max() > 0.5
    for logits in (found, loaded):
        assert_close(logits, wanted, atol=1e-4, rtol=1e-4)


def test_matrices_may_have_ranks_of_their_own(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    lora = PeftLoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 2}
    )
    adapted = get_peft_model(load_model(str(source), CPU, torch.float32), lora)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    adapted.peft_config["default"].base_model_name_or_path = str(source)
    adapted.save_pretrained(tmp_path / "one")
    found = load_model(str(tmp_path / "one"), CPU, torch.float32).state_dict()
    for name, tensor in by_peft(source, tmp_path / "one").state_dict().items():
        assert_close(found[name], tensor, msg=name)


def test_an_adapter_is_loaded_in_the_room_of_its_base(tmp_path):
    wide = {"d_model": 256, "mlp_hidden_size": 512, "n_heads": 4, "n_kv_heads": 4, "n_layers": 8}
    source, tensors = llada_folder(tmp_path / "a", torch.bfloat16, **wide)
    folder = adapter(source, tmp_path / "one", 1)
    size = sum(tensor.nbytes for tensor in tensors.values())
    loaded = []
    peak = allocated(lambda: loaded.append(load_model(str(folder), CPU, torch.bfloat16)))
    # the model, its files, which are mapped, and some copies of one matrix of 512 x 256
    assert size < peak < 2 * size + 4 * 512 * 256 * 4
    convert(folder, tmp_path / "merged", "upstream", 10**9)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    found = loaded[0].state_dict()
    assert merged.keys() == found.keys()
    same = torch.cat([(found[name] == tensor).flatten() for name, tensor in merged.items()])
    # a product's last bit may differ between the two, and now and then tip a weight over
    assert same.float().mean() > 0.999


@pytest.mark.parametrize("inside", [True, False])
def test_a_run_can_be_moved_wherever_its_base_lies(tmp_path, inside):
    source, _ = llada_folder(tmp_path / ("run/base" if inside else "a"))
    folder = adapter(source, tmp_path / "run" / "checkpoints" / "sft" / "step-1", 1)
    wanted = load_model(str(folder), CPU, torch.float32)(some_ids()).logits
    (tmp_path / "far" / "off").mkdir(parents=True)
    moved = (tmp_path / "run").rename(tmp_path / "far" / "off" / "run")
    folder = moved / "checkpoints" / "sft" / "step-1"
    assert torch.equal(load_model(str(folder), CPU, torch.float32)(some_ids()).logits, wanted)


def test_an_adapter_on_a_model_of_the_hub(tmp_path, monkeypatch):
    """Its base is fetched, or was before, by the loader and by convert alike."""
    source, _ = llada_folder(tmp_path / "a")
    folder = adapter(source, tmp_path / "one", 1)
    path = folder / "adapter_config.json"
    named = {"base_model_name_or_path": "owner/of-a-model"}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    with pytest.raises(UserError, match="one: its base is not here: model=owner/of-a-model"):
        convert(folder, tmp_path / "merged", "upstream", 10**9)
    monkeypatch.setattr(
        "weft_rl.checkpoints.hub.snapshot_download",
        lambda name, **_: {"owner/of-a-model": str(source)}[name],
    )
    convert(folder, tmp_path / "merged", "upstream", 10**9)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for name, tensor in load_model(str(folder), CPU, torch.float32).state_dict().items():
        assert_close(merged[name], tensor)


def test_an_adapter_on_an_adapter(tmp_path):
    """What RL after a cold start leaves: both are added to the base."""
    source, tensors = llada_folder(tmp_path / "a")
    first = adapter(source, tmp_path / "one", 1)
    second = adapter(first, tmp_path / "two", 2, targets=("q_proj",))
    convert(second, tmp_path / "merged", "upstream", 10**9)
    name = "model.transformer.blocks.1.q_proj"
    wanted = tensors[f"{name}.weight"]
    for folder in (first, second):
        parts = load_file(folder / WEIGHTS)
        key = f"base_model.model.{name}.lora_"
        wanted = wanted + 2 * parts[f"{key}B.weight"] @ parts[f"{key}A.weight"]  # alpha / r = 2
    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert_close(found[f"{name}.weight"], wanted)
    # untouched by either: the same bits
    head = "model.transformer.ff_out.weight"
    assert torch.equal(found[head], tensors[head])


def test_a_bfloat16_base_is_added_to_in_float32(tmp_path):
    source, tensors = llada_folder(tmp_path / "a", torch.bfloat16)
    folder = adapter(source, tmp_path / "one", 1, targets=("q_proj",))
    convert(folder, tmp_path / "merged", "upstream", 10**9)
    name = "model.transformer.blocks.0.q_proj"
    parts = load_file(folder / WEIGHTS)
    a, b = (parts[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    wanted = (tensors[f"{name}.weight"].float() + 2 * (b @ a)).bfloat16()
    found = load_file(tmp_path / "merged" / "model.safetensors")[f"{name}.weight"]
    assert_close(found, wanted)
    # rounded as torch does it; a product's last bit may differ and now and then tip a weight over
    assert (found == wanted).float().mean() > 0.99


# Makes an adapter in the folder of the second argument.
MAKE = """
import sys
from pathlib import Path
import torch
from weft_rl.config.model import LoraConfig
from weft_rl.models.loading import load_model, with_lora
base, folder = sys.argv[1:]
model = load_model(base, torch.device("cpu"), torch.float32)
lora = LoraConfig(2, targets=["q_proj", "k_proj", "up_proj", "ff_out"])
with_lora(model, lora, base, Path(folder)).save_pretrained(folder)
"""


def test_the_files_of_an_adapter_do_not_follow_the_hash_seed(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    files = []
    for seed in ("1", "2"):
        folder = tmp_path / f"seed{seed}"
        subprocess.run(
            [sys.executable, "-c", MAKE, str(source), str(folder)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    names = json.loads(files[0]["adapter_config.json"])["target_modules"]
    assert names == sorted(names)
    assert len(names) == 4 * 3


def test_an_adapter_of_another_model(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    other, _ = llada_folder(tmp_path / "b", mlp_hidden_size=48)
    folder = adapter(other, tmp_path / "one", 1, targets=("ff_proj",))
    path = folder / "adapter_config.json"
    moved = {"base_model_name_or_path": os.path.relpath(source, folder)}
    path.write_text(json.dumps(json.loads(path.read_text()) | moved))
    with pytest.raises(UserError, match=r"ff_proj.weight \(48, 24\), which the model has as \(40,"):
        convert(folder, tmp_path / "merged", "upstream", 10**9)
    parts = load_file(folder / WEIGHTS)
    parts.pop(next(name for name in parts if "lora_B" in name))
    save_file(parts, folder / WEIGHTS)
    with pytest.raises(UserError, match="has no lora_B"):
        convert(folder, tmp_path / "merged", "upstream", 10**9)


def test_targets_that_match_nothing(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    model = load_model(str(source), CPU, torch.float32)
    with pytest.raises(UserError, match="no module is called o_proj; there are attn_out, ff_out"):
        with_lora(model, LoraConfig(2, targets=["q_proj", "o_proj"]), str(source), tmp_path)


def test_the_head_is_not_adapted_with_its_namesake(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    parts = load_file(adapter(source, tmp_path / "one", 1, targets=("ff_out",)) / WEIGHTS)
    assert len(parts) == 2 * 3
    assert all(".blocks." in name for name in parts)


def test_an_adapter_on_itself(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    folder = adapter(source, tmp_path / "one", 1)
    path = folder / "adapter_config.json"
    own = {"base_model_name_or_path": "."}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    for use in (
        lambda: load_model(str(folder), CPU, torch.float32),
        lambda: convert(folder, tmp_path / "merged", "upstream", 10**9),
    ):
        with pytest.raises(UserError, match="one: is an adapter on itself; name its base in"):
            use()


def test_a_damaged_adapter_is_not_merged(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    folder = adapter(source, tmp_path / "one", 1)
    write_checksums(folder)
    convert(folder, tmp_path / "whole", "upstream", 10**9)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=f"{WEIGHTS} does not match its checksum"):
        convert(folder, tmp_path / "merged", "upstream", 10**9)
    assert not (tmp_path / "merged").exists()
