"""The launcher's files name what accelerate knows, and the layer that is wrapped is the model's."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from weft_rl.models.modeling import LLaDAForMaskedLM

FOLDER = Path(__file__).parents[1] / "configs" / "accelerate"
KINDS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == KINDS[name]


def test_all_are_covered():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)


def test_the_wrapped_layer_is_the_models():
    wrapped = yaml.safe_load((FOLDER / "fsdp2.yaml").read_text())["fsdp_config"]
    assert wrapped["fsdp_transformer_layer_cls_to_wrap"] in LLaDAForMaskedLM._no_split_modules
