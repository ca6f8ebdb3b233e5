"""Adapters of every form, merged into models and exports as PEFT merges them, or refused."""

import json
import os

import pytest
import torch
from adapters import (
    CONFIG,
    CPU,
    WEIGHTS,
    adapter,
    change_config,
    load,
    merged_by_peft,
    peft_adapter,
    refused,
    some_ids,
)
from allocations import allocated
from peft import EvaConfig
from run_folders import flip
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import LlamaForCausalLM
from upstream_checkpoint import dream_folder, llada_folder

from weft_rl.config.model import LoraConfig
from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model, with_lora
from weft_rl.runs.checksums import write_checksums


@pytest.fixture
def base(tmp_path):
    return llada_folder(tmp_path / "a")[0]


def test_a_new_adapter_is_drawn_from_the_seed_alone(base, tmp_path):
    def drawn(seed, before):
        torch.manual_seed(before)
        model, state = load(base), torch.random.get_rng_state()
        adapted = with_lora(model, LoraConfig(2, targets=["q_proj"]), str(base), tmp_path, seed)
        assert torch.random.get_rng_state().equal(state)
        return torch.cat([w.flatten() for n, w in adapted.named_parameters() if "lora_A" in n])

    assert drawn(5, before=1).equal(drawn(5, before=2))
    assert not drawn(5, before=1).equal(drawn(6, before=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        *({"init_lora_weights": kind} for kind in (False, "gaussian", "orthogonal")),
        {"init_lora_weights": "eva", "eva_config": EvaConfig()},
        *({"rank_pattern": {"up_proj": 2}}, {"use_rslora": True}),
        {"use_rslora": True, "rank_pattern": {r"blocks\.1\.up_proj": 2, "q_proj": 3}},
        {"layers_to_transform": [1], "layers_pattern": "blocks"},
        {"exclude_modules": ["model.transformer.blocks.0.q_proj"]},
        *({"target_modules": names} for names in (r".*\.[12]\.(q|v)_proj", "all-linear")),
        {"lora_dropout": 0.5},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_adapters_that_are_a_sum_are_merged_as_peft_does(base, tmp_path, options):
    """By the loader and in exports, of which transformers' own class reads one."""
    folder, ids = peft_adapter(base, tmp_path / "one", **options), some_ids()
    convert(folder, tmp_path / "upstream", "upstream", 10**9)
    convert(folder, tmp_path / "llama", "transformers", 20_000)
    llama = LlamaForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32).eval()
    with torch.no_grad():
        expected = merged_by_peft(base, folder).eval()(ids).logits
        assert (expected - load(base)(ids).logits).abs().max() > 0.1
        for model in (load(folder), load(tmp_path / "upstream"), llama):
            assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        *({"init_lora_weights": kind} for kind in ("pissa", "pissa_niter_4", "olora", "mica")),
        *({name: True} for name in ("use_dora", "use_qalora", "lora_bias")),
        *({name: {}} for name in ("velora_config", "kasa_config")),
        *({"alpha_pattern": {"up_proj": 12}}, {"bias": "lora_only"}),
        *({"modules_to_save": ["ln_f"]}, {"trainable_token_indices": {"wte": [3, 4]}}),
        *({"target_parameters": ["attn_out.weight"]}, {"target_modules": ["wte"]}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_adapters_made_by_peft_are_refused(base, tmp_path, options):
    (name,) = options
    match = "pairs" if name == "target_modules" else name
    refused(peft_adapter(base, tmp_path / "one", **options), match)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lora_alpha", value) for value in (None, "16", True, float("nan"), -1)),
        *(("init_lora_weights", value) for value in ("corda", "loftq", "lora_ga")),
        *(("bias", "all"), ("peft_type", "IA3"), ("fan_in_fan_out", True)),
        *(("alora_invocation_tokens", [5, 6]), ("layer_replication", [[0, 2]])),
        *(("use_bdlora", {"nblocks": 2}), ("arrow_config", {"top_k": 3})),
        *(("an_option_of_a_later_release", True), ("rank_pattern", {"(": 3}), ("r", "3"), ("r", 8)),
    ],
)
def test_other_forms_of_adapters_are_refused(base, tmp_path, key, value):
    folder = adapter(base, tmp_path / "one", 1)
    change_config(folder, **{key: value})
    refused(folder, "rank 8" if value == 8 else "r=" if key == "r" else key)


def test_damaged_adapters_are_refused(base, tmp_path):
    folder = adapter(base, tmp_path / "one", 1)
    change_config(folder, base_model_name_or_path=".")
    refused(folder, "one: .*base")
    change_config(folder, base_model_name_or_path=str(base))
    tensors = load_file(folder / WEIGHTS)
    lost = next(name for name in tensors if "lora_B" in name)
    save_file({name: tensors[name] for name in tensors if name != lost}, folder / WEIGHTS)
    refused(folder, "lora_B")
    save_file(tensors, folder / WEIGHTS)
    write_checksums(folder)
    load(folder)
    flip(folder / WEIGHTS)
    refused(folder, f"{WEIGHTS} .*checksum")
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    refused(folder, r"adapter_model\.bin")


def test_an_adapter_of_another_model(base, tmp_path):
    other, _ = llada_folder(tmp_path / "b", mlp_hidden_size=48)
    folder = adapter(other, tmp_path / "one", 1, targets=("ff_proj",))
    change_config(folder, base_model_name_or_path=os.path.relpath(base, folder))
    refused(folder, r"ff_proj.weight .*\(48, 24\).*\(40, 24\)")


def test_an_adapter_is_loaded_in_the_room_of_its_base(tmp_path):
    wide = {"d_model": 256, "mlp_hidden_size": 512, "n_heads": 4, "n_kv_heads": 4, "n_layers": 8}
    source, tensors = llada_folder(tmp_path / "a", torch.bfloat16, **wide)
    folder = adapter(source, tmp_path / "one", 1)
    size = sum(tensor.nbytes for tensor in tensors.values())
    models = []
    peak = allocated(lambda: models.append(load_model(str(folder), CPU, torch.bfloat16)))
    # the model, its mapped files, and some copies of one matrix of 512 x 256
    assert size < peak < 2 * size + 4 * 512 * 256 * 4
    convert(folder, tmp_path / "merged", "upstream", 10**9)
    merged, state = load_file(tmp_path / "merged" / "model.safetensors"), models[0].state_dict()
    assert merged.keys() == state.keys()
    assert all(torch.equal(merged[name], state[name]) for name in merged)


@pytest.mark.parametrize("inside", [True, False])
def test_a_run_can_be_moved_wherever_its_base_is(tmp_path, inside):
    source, _ = llada_folder(tmp_path / ("run/base" if inside else "a"))
    step = "checkpoints/sft/step-1"
    expected = load(adapter(source, tmp_path / "run" / step, 1))(some_ids()).logits
    (tmp_path / "far" / "off").mkdir(parents=True)
    moved = (tmp_path / "run").rename(tmp_path / "far" / "off" / "run")
    assert torch.equal(load(moved / step)(some_ids()).logits, expected)


def test_an_adapter_on_a_model_of_the_hub(base, tmp_path, monkeypatch):
    folder, name = adapter(base, tmp_path / "one", 1), "owner/of-a-model"
    change_config(folder, base_model_name_or_path=name)
    refused(folder, f"one: .*model={name}")
    download = {name: str(base)}
    snapshot_download = "huggingface_hub.snapshot_download"
    monkeypatch.setattr(snapshot_download, lambda name, **_: download[name])
    convert(folder, tmp_path / "merged", "upstream", 10**9)
    assert_close(load_file(tmp_path / "merged" / "model.safetensors"), load(folder).state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_added_to_the_base_in_float32(tmp_path, dtype):
    """One, and one on it, as RL after a cold start has it."""
    source, tensors = llada_folder(tmp_path / "a", dtype)
    first = adapter(source, tmp_path / "one", 1, targets=("q_proj",))
    name = "model.transformer.blocks.1.q_proj"
    expected = tensors[f"{name}.weight"].float()
    # a base in bfloat16 is rounded after each
    both = [first] if dtype == torch.bfloat16 else [first, adapter(first, tmp_path / "two", 2)]
    for folder in both:
        parts = load_file(folder / WEIGHTS)
        a, b = (parts[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        expected = expected + 2 * b @ a  # alpha / r
    convert(both[-1], tmp_path / "merged", "upstream", 10**9)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    # the last bit of a product may differ, and change the rounding of a weight now and then
    assert_close(merged[f"{name}.weight"], expected.to(dtype))
    if dtype == torch.bfloat16:
        assert (merged[f"{name}.weight"] == expected.to(dtype)).float().mean() > 0.99
    # not updated by either: the same bits
    head = "model.transformer.ff_out.weight"
    assert torch.equal(merged[head], tensors[head])


def test_targets_are_modules_and_not_the_head(base, tmp_path):
    dream = dream_folder(tmp_path / "dream")[0]
    for folder, wrong, names in (
        (base, "o_proj", "attn_out, ff_out"),
        (dream, "lm_head", "down_proj, gate"),
    ):
        with pytest.raises(UserError, match=rf"targets: .*{wrong}.*{names}"):
            with_lora(load(folder), LoraConfig(2, targets=["q_proj", wrong]), "x", tmp_path)
    # LLaDA's head has the name of the feed-forward layer
    for model, targets, layers in (
        (base, ("q_proj", "k_proj", "up_proj", "ff_out"), 3),
        (dream, ("q_proj", "down_proj"), 2),
    ):
        folder = adapter(model, tmp_path / f"of-{model.name}", 1, targets)
        tensors = load_file(folder / WEIGHTS)
        assert len(tensors) == 2 * len(targets) * layers
        assert all(".blocks." in name or ".layers." in name for name in tensors)
        # an order that does not follow the hash seed
        names = json.loads((folder / CONFIG).read_text())["target_modules"]
        assert names == sorted(names)
        assert len(names) == len(targets) * layers
