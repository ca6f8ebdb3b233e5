"""Adapters with nonzero updates, written by weft_rl and by PEFT alone."""

import json

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model

from weft_rl.config.model import LoraConfig
from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model, with_lora

CPU = torch.device("cpu")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def load(folder):
    return load_model(str(folder), CPU, torch.float32)


def adapter(base, folder, seed, targets=("q_proj", "ff_out")):
    adapted = with_lora(load(base), LoraConfig(3, 6, targets=list(targets)), str(base), folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3, generator=generator)
    adapted.save_pretrained(folder)
    return folder


def peft_adapter(base, folder, **options):
    plain = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"]}
    adapted = get_peft_model(load(base), PeftLoraConfig(**plain | options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return folder


def merged_by_peft(base, folder):
    return PeftModel.from_pretrained(load(base), str(folder)).merge_and_unload()


def change_config(folder, name=CONFIG, /, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def some_ids():
    return torch.randint(2, 52, (2, 9), generator=torch.Generator().manual_seed(0))


def refused(folder, match, to="upstream"):
    """In one line, by the loader and the converter."""
    out = folder / "out"
    for use in (load, lambda place: convert(place, out, to, 10**9)):
        with pytest.raises(UserError, match=match) as raised:
            use(folder)
        assert "\n" not in str(raised.value)
    assert not out.exists()
