"""Published sizes of A2D models, without their weights."""

import pytest
import torch
from transformers import AutoModelForMaskedLM

from weft_rl.families.a2d import A2D_LLAMA, A2D_QWEN2, A2D_QWEN3
from weft_rl.families.base import SIZE_FIELDS
from weft_rl.models import A2DLlamaConfig, A2DQwen2Config, A2DQwen3Config

# Source: the model cards.
MODELS = [
    (A2D_LLAMA, A2DLlamaConfig, 134_515_008),
    (A2D_QWEN2, A2DQwen2Config, 494_032_768),
    (A2D_QWEN3, A2DQwen3Config, 596_049_920),
]


@pytest.mark.parametrize(("family", "config_class", "parameters"), MODELS)
def test_the_tensors_of_the_published_sizes(family, config_class, parameters):
    sizes = family.published_sizes
    options = {name: getattr(sizes, name) for name in SIZE_FIELDS}
    if family is not A2D_QWEN2:
        options["head_dim"] = sizes.head_dim
    config = config_class(**options, tie_word_embeddings=sizes.tied, mask_token_id=1)
    with torch.device("meta"):
        network = AutoModelForMaskedLM.from_config(config)
    stored = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    assert stored.pop("lm_head.weight") == stored["model.embed_tokens.weight"]
    assert {spec.upstream: spec.shape for spec in family.tensors(sizes)} == stored
    assert family.count(sizes) == parameters
