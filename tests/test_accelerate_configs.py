"""The launcher's files name what accelerate knows, and models which of their layers are wrapped."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers import AutoModelForMaskedLM

from weft_rl.models import DreamConfig, LLaDAConfig

FOLDER = Path(__file__).parents[1] / "configs" / "accelerate"
SMALL = {"vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 1, "mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
KINDS = {
    "one_gpu": "NO",
    "ddp": "MULTI_GPU",
    "fsdp2": "FSDP",
    "zero2": "DEEPSPEED",
    "zero3": "DEEPSPEED",
}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == KINDS[name]


def test_all_are_covered():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)


def test_every_model_names_the_layers_that_are_wrapped():
    wrapped = yaml.safe_load((FOLDER / "fsdp2.yaml").read_text())["fsdp_config"]
    assert "fsdp_transformer_layer_cls_to_wrap" not in wrapped  # asks the model then
    for config, names in ((LLaDAConfig, {"LLaDABlock"}), (DreamConfig, {"Qwen2DecoderLayer"})):
        model = AutoModelForMaskedLM.from_config(config(**SMALL, bos_token_id=3, eot_token_id=4))
        assert {*model._no_split_modules} == names
        assert names <= {type(module).__name__ for module in model.modules()}
