"""Published config.json files: what is accepted, ignored, and refused before loading."""

import json

import pytest
import torch
from adapters import change_config, load, refused, some_ids
from transformers import AutoModelForMaskedLM
from upstream_checkpoint import dream_folder, llada_folder

from weft_rl.convert import convert
from weft_rl.families import PUBLISHED, read_config
from weft_rl.families.llada import EIGHT_B, LLADA
from weft_rl.models import LLaDAConfig

# Every field of the published file but the sizes. Source: LLaDA's published configuration.
PUBLISHED_FORM = {
    **dict.fromkeys(["alibi", "attention_layer_norm", "bias_for_layer_norm"], False),
    **dict.fromkeys(["include_bias", "include_qkv_bias", "input_emb_norm", "scale_logits"], False),
    **dict.fromkeys(["flash_attention", "use_cache", "weight_tying"], False),
    **dict.fromkeys(["attention_dropout", "residual_dropout", "embedding_dropout"], 0.0),
    **dict.fromkeys(["attention_layer_norm_with_affine", "layer_norm_with_affine"], True),
    **dict.fromkeys(["rope", "rope_full_precision"], True),
    **dict.fromkeys(["init_cutoff_factor", "multi_query_attention"]),
    **{"activation_type": "silu", "block_type": "llama", "layer_norm_type": "rms"},
    **{"model_type": "llada", "architectures": ["LLaDAModelLM"], "transformers_version": "4.46.3"},
    **{"init_device": "meta", "init_fn": "mitchell", "init_std": 0.02, "precision": "amp_bf16"},
    **{"alibi_bias_max": 8.0, "block_group_size": 1, "mlp_ratio": 4, "rms_norm_eps": 1e-05},
    "rope_theta": 500000.0,
    "auto_map": {
        "AutoConfig": "configuration_llada.LLaDAConfig",
        "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        "AutoModel": "modeling_llada.LLaDAModelLM",
    },
}
SIZES = {
    **{"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288},
    **{"vocab_size": 126464, "embedding_size": 126464, "max_sequence_length": 4096},
    **{"mask_token_id": 126336, "eos_token_id": 126081, "pad_token_id": 126081},
}


def test_the_published_configuration_is_accepted(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_FORM | SIZES))
    config = LLaDAConfig.from_pretrained(tmp_path)
    assert (config.hidden_size, config.end_token_ids) == (4096, [126081, 126348])
    assert LLADA.sizes(read_config(tmp_path)) == EIGHT_B


@pytest.mark.parametrize("name", ["llada_8b", "llada_1_5"])
def test_a_folder_with_the_published_name_and_layout(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    _, tensors = llada_folder(tmp_path / PUBLISHED[name], torch.bfloat16, **PUBLISHED_FORM)
    model = load(PUBLISHED[name])
    assert model.num_parameters() == sum(tensor.numel() for tensor in tensors.values())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[key].float())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((f"{kind}_dropout", 0.1) for kind in ("attention", "residual", "embedding")),
        *((name, True) for name in ("alibi", "weight_tying", "multi_query_attention")),
        *(("rope_full_precision", False), ("layer_norm_with_affine", False)),
        *(("bias_for_layer_norm", True), ("block_group_size", 2), ("activation_type", "swiglu")),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
    ],
)
def test_other_architectures_are_refused(tmp_path, name, value):
    """By the loader, the converter and the class itself; null is the default."""
    folder, _ = llada_folder(tmp_path / "a", **{**PUBLISHED_FORM, name: value})
    refused(folder, name, "transformers")
    with pytest.raises(ValueError, match="LLaDAConfig: "):
        LLaDAConfig(**{name: value})
    if name != "activation_type":
        change_config(folder, "config.json", **{name: None})
        load(folder)


MAKERS = {"llada": llada_folder, "dream": dream_folder}
FAMILIES = pytest.mark.parametrize("kind", MAKERS)


@pytest.mark.slow
@FAMILIES
@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "flash_attention_2"},
        {f"_attn_implementation_{name}": True for name in ("internal", "autoset")},
        {"use_flash_attn": True, "flash_attention": True, "use_sdpa": True},
        {"return_dict": False, "use_return_dict": False},
        {"output_attentions": True, "output_hidden_states": True},
        {"torch_dtype": "bfloat16", "dtype": "float16"},
        *({"torch_dtype": dtype} for dtype in ("torch.bfloat16", "auto")),
        {"architectures": "LLaDAModelLM", "auto_map": {}},
        {"id2label": {"a": 1}, "num_labels": 10**4, "problem_type": 3},
        {"pad_token_id": None} | {"eot_token_id": None, "bos_token_id": None},
        {"tie_word_embeddings": None, "quantization_config": None, "rope_scaling": None},
        {"rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        {"transformers_version": 4, "unsloth_version": "2025.1", "unsloth_fixed": True},
        {"wandb_run": "a", "_commit_hash": "b", "note": {"of": "mine"}, "step": 3},
        {"layer_norm_eps": "1e-5", "end_token_ids": 3, "save_pretrained": "x"},
        {"head_dim": None, "initializer_range": None},
    ],
)
def test_options_that_change_nothing(tmp_path, kind, changes):
    """They are ignored on loading and dropped by convert."""
    if kind == "llada" and "pad_token_id" in changes:
        changes = {name: value for name, value in changes.items() if name != "pad_token_id"}
    if kind == "dream" and "head_dim" in changes:
        changes = changes | {"head_dim": 6}
    folder, ids = MAKERS[kind](tmp_path / "a")[0], some_ids()
    expected = load(folder)(ids).logits
    change_config(folder, "config.json", **changes)
    assert torch.equal(load(folder)(ids).logits, expected)
    by_transformers = AutoModelForMaskedLM.from_pretrained(folder)(ids).logits.float()
    assert torch.equal(by_transformers, expected) or "dtype" in "".join(changes)
    convert(folder, tmp_path / "b", "upstream", 10**9)
    assert torch.equal(load(tmp_path / "b")(ids).logits, expected)
    assert not [name for name in read_config(tmp_path / "b") if "attn_impl" in name]


@pytest.mark.slow
@FAMILIES
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("rope_theta", value) for value in ("50.0", -1, 0, True, float("nan"), [50.0], 10**400)),
        *(("rms_norm_eps", value) for value in ("1e-5", None, False, float("inf"))),
        *(("vocab_size", value) for value in ("52", 52.0, True, None, 0)),
        *(("mask_token_id", value) for value in ("0", -1, None, 52, [0])),
        *(("eos_token_id", value) for value in ("1", None, [], [1, "2"], -1)),
        *(("pad_token_id", value) for value in ("1", -1, 1.5)),
        *(("tie_word_embeddings", value) for value in (True, "false")),
        ("quantization_config", {"quant_method": "fp8"}),
        *(("rope_scaling", value) for value in ("linear", {"type": "linear"}, {"factor": 4.0})),
        ("rope_scaling", {"type": "su", "factor": 2.0}),
        ("rope_scaling", {"type": "yarn", "factor": "4"}),
        ("rope_scaling", {"type": "yarn", "factor": 4.0, "finetuned": True}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 10000.0}),
        ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
        *((name, True) for name in ("is_causal", "yarn", "use_yarn", "qk_norm", "use_qk_norm")),
        *((name, True) for name in ("use_sliding_window", "qkv_bias")),
        *(("ntk_alpha", 2.0), ("logit_scale", 0.5), ("rotary_pct", 0.25), ("num_experts", 8)),
        *(("attn_logit_softcapping", 30.0), ("embedding_multiplier", 12.0), ("head_dim", 128)),
        ("initializer_range", "0.02"),
    ],
)
def test_unsupported_values_are_named_before_loading(tmp_path, kind, name, value):
    if (kind, name) == ("llada", "tie_word_embeddings"):
        name = "weight_tying"
    folder, _ = MAKERS[kind](tmp_path / "a")
    change_config(folder, "config.json", **{name: value})
    refused(folder, name, "transformers")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("model_type", "bert"), ("d_model", None), ("rope_theta", None), ("n_kv_heads", 1)),
        *(("n_layers", "3"), ("n_layers", 2000), ("embedding_size", 64)),
        # two names of one field must agree
        ("max_position_embeddings", 64),
        # a causal Llama is not LLaDA
        ("model_type", "llama"),
    ],
)
def test_unsupported_values_of_llada(tmp_path, name, value):
    folder, _ = llada_folder(tmp_path / "a")
    change_config(folder, "config.json", **{name: value})
    refused(folder, "is_causal=false" if value == "llama" else name, "transformers")


@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    ],
)
def test_a_dream_keeps_its_scaled_positions(tmp_path, scaling):
    folder, ids = dream_folder(tmp_path / "a", rope_scaling=scaling)[0], some_ids()
    expected = load(folder)(ids).logits
    plain = load(dream_folder(tmp_path / "plain")[0])(ids).logits
    assert not torch.allclose(expected, plain, atol=1e-3)
    convert(folder, tmp_path / "b", "transformers", 10**9)
    convert(tmp_path / "b", tmp_path / "c", "upstream", 10**9)
    assert torch.equal(load(tmp_path / "c")(ids).logits, expected)
    assert read_config(tmp_path / "c")["rope_theta"] == 50.0
