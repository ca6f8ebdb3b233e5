"""The config.json of LLaDA-8B and LLaDA-1.5, and options of it that no form is built of."""

import json

import pytest
import torch
from upstream_checkpoint import llada_folder

from weft_rl.convert import convert
from weft_rl.errors import UserError
from weft_rl.families.llada import EIGHT_B, LLADA
from weft_rl.families.registry import PUBLISHED, read_config
from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.loading import load_model

CPU = torch.device("cpu")
# Every field of the published file but the sizes. Source: LLaDA's published configuration.
PUBLISHED_FORM = {
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "auto_map": {
        "AutoConfig": "configuration_llada.LLaDAConfig",
        "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        "AutoModel": "modeling_llada.LLaDAModelLM",
    },
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "embedding_dropout": 0.0,
    "flash_attention": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_cutoff_factor": None,
    "init_device": "meta",
    "init_fn": "mitchell",
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "precision": "amp_bf16",
    "residual_dropout": 0.0,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "transformers_version": "4.46.3",
    "use_cache": False,
    "weight_tying": False,
}
SIZES = {
    **{"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288},
    **{"vocab_size": 126464, "embedding_size": 126464, "max_sequence_length": 4096},
    **{"mask_token_id": 126336, "eos_token_id": 126081, "pad_token_id": 126081},
}


def test_the_published_configuration_is_taken(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_FORM | SIZES))
    config = LLaDAConfig.from_pretrained(tmp_path)
    assert (config.hidden_size, config.end_token_ids) == (4096, [126081, 126348])
    assert LLADA.sizes(read_config(tmp_path)) == EIGHT_B


@pytest.mark.parametrize("name", ["llada_8b", "llada_1_5"])
def test_a_folder_named_and_laid_out_as_published(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    _, tensors = llada_folder(tmp_path / PUBLISHED[name], torch.bfloat16, **PUBLISHED_FORM)
    model = load_model(PUBLISHED[name], CPU, torch.float32)
    assert model.num_parameters() == sum(tensor.numel() for tensor in tensors.values())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[key].float())


UNBUILT = [
    ("alibi", True, "must be False"),
    ("weight_tying", True, "must be False"),
    ("rope_full_precision", False, "must be True"),
    ("rope_scaling", {"rope_type": "linear", "factor": 2.0}, "must be None"),
    ("attention_dropout", 0.1, "must be 0.0"),
    ("residual_dropout", 0.1, "must be 0.0"),
    ("embedding_dropout", 0.1, "must be 0.0"),
    ("multi_query_attention", True, "must be False"),
    ("layer_norm_with_affine", False, "must be True"),
    ("bias_for_layer_norm", True, "must be False"),
    ("block_group_size", 2, "must be 1"),
    ("activation_type", "swiglu", "must be one of gelu, relu, silu"),
]


@pytest.mark.parametrize(("name", "value", "rule"), UNBUILT)
def test_what_is_not_built_is_refused(tmp_path, name, value, rule):
    """By the loader, the converter and the class itself; null is the default."""
    folder, _ = llada_folder(tmp_path / "a", **{**PUBLISHED_FORM, name: value})
    message = f"{name}={value!r}: {rule}".replace("{", "\\{")
    with pytest.raises(UserError, match=message):
        load_model(str(folder), CPU, torch.float32)
    with pytest.raises(UserError, match=message):
        convert(folder, tmp_path / "b", "transformers", 10**9)
    with pytest.raises(ValueError, match=rule):
        LLaDAConfig(**{name: value})
    if name != "activation_type":
        path = folder / "config.json"
        path.write_text(json.dumps(read_config(folder) | {name: None}))
        load_model(str(folder), CPU, torch.float32)
