"""Forms of adapters: merged as PEFT merges them, or refused."""

import json

import pytest
import torch
from peft import EvaConfig, get_peft_model
from peft import LoraConfig as PeftLoraConfig
from test_adapters import CPU, WEIGHTS, adapter, by_peft, some_ids
from torch.testing import assert_close
from upstream_checkpoint import llada_folder

from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model


def peft_adapter(base, folder, **options):
    """An adapter made and filled by PEFT alone."""
    plain = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"]}
    adapted = get_peft_model(
        load_model(str(base), CPU, torch.float32), PeftLoraConfig(**plain | options)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": False},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "eva", "eva_config": EvaConfig()},
        {"use_rslora": True},
        {"use_rslora": True, "rank_pattern": {r"blocks\.1\.up_proj": 2, "q_proj": 3}},
        {"layers_to_transform": [1], "layers_pattern": "blocks"},
        {"exclude_modules": ["model.transformer.blocks.0.q_proj"]},
        {"target_modules": r".*\.[12]\.(q|v)_proj"},
        {"target_modules": "all-linear"},
        {"lora_dropout": 0.5},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_adapters_that_are_a_sum_are_merged_as_peft_does(tmp_path, options):
    source, _ = llada_folder(tmp_path / "a")
    folder = peft_adapter(source, tmp_path / "one", **options)
    convert(folder, tmp_path / "merged", "upstream", 10**9)
    with torch.no_grad():
        wanted = by_peft(source, folder).eval()(some_ids()).logits
        before = load_model(str(source), CPU, torch.float32)(some_ids()).logits
        assert (wanted - before).abs().max() > 0.1
        for place in (folder, tmp_path / "merged"):
            found = load_model(str(place), CPU, torch.float32)(some_ids()).logits
            assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "mica"},
        {"alpha_pattern": {"up_proj": 12}},
        {"use_dora": True},
        {"use_qalora": True},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["ln_f"]},
        {"trainable_token_indices": {"wte": [3, 4]}},
        {"target_parameters": ["attn_out.weight"]},
        {"target_modules": ["wte"]},
        {"velora_config": {}},
        {"kasa_config": {}},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_adapters_made_by_peft_are_refused(tmp_path, options):
    source, _ = llada_folder(tmp_path / "a")
    folder = peft_adapter(source, tmp_path / "one", **options)
    name = next(iter(options))
    with pytest.raises(UserError, match=r"pairs" if name == "target_modules" else name):
        load_model(str(folder), CPU, torch.float32)
    with pytest.raises(UserError):
        convert(folder, tmp_path / "merged", "upstream", 10**9)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"init_lora_weights": "corda"}, "init_lora_weights"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config"),
        ({"an_option_of_a_later_release": True}, "an_option_of_a_later_release"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": "16"}, "lora_alpha"),
        ({"lora_alpha": True}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": -1}, "lora_alpha"),
        ({"r": 8}, "rank 8"),
        ({"r": "3"}, "r="),
        ({"rank_pattern": {"(": 3}}, "rank_pattern"),
    ],
)
def test_other_forms_of_adapters_are_refused(tmp_path, change, key):
    source, _ = llada_folder(tmp_path / "a")
    folder = adapter(source, tmp_path / "one", 1)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=key):
        load_model(str(folder), CPU, torch.float32)
    with pytest.raises(UserError, match=key):
        convert(folder, tmp_path / "merged", "upstream", 10**9)


def test_an_adapter_without_alpha_or_with_pickled_weights(tmp_path):
    source, _ = llada_folder(tmp_path / "a")
    folder = adapter(source, tmp_path / "one", 1)
    path = folder / "adapter_config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({key: whole[key] for key in whole if key != "lora_alpha"}))
    with pytest.raises(UserError, match="lora_alpha is missing"):
        load_model(str(folder), CPU, torch.float32)
    path.write_text(json.dumps(whole))
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin"):
        load_model(str(folder), CPU, torch.float32)
