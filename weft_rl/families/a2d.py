"""A2D: Llama, Qwen2 and Qwen3 without a causal mask, under their own tensor names.

Source: dllm (ZHZisZZ/dllm), its a2d pipeline; published as Tiny-A2D."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft_rl.errors import UserError
from weft_rl.families.base import LLAMA_BLOCK, Family, Sizes
from weft_rl.families.fields import FLAG, OPTIONAL_COUNT, RATE
from weft_rl.io.safe_files import read_json

# Names of a mask token, in order of preference; the first is added where there is none.
MASK_TOKENS = ("<|mask|>", "<|MASK|>", "<|mdm_mask|>", "[MASK]", "<mask>")
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
# Field of a completed configuration: the mask token is new, and its row starts as a mean.
ADDED_MASK = "added_mask_token"
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_QK_NORM: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_norm": ("head_dim",),
    "self_attn.k_norm": ("head_dim",),
}


def _family(transformers_type: str, architecture: str, **options: Any) -> Family:
    defaults = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
    defaults |= {"tie_word_embeddings": False, "logit_shift": False}
    return Family(
        name=f"a2d-{transformers_type}",
        model_types=(f"a2d-{transformers_type}",),
        transformers_type=transformers_type,
        architectures=(f"A2D{architecture}ForMaskedLM", f"{architecture}ForCausalLM"),
        network=f"weft_rl.models.modeling_a2d:A2D{architecture}ForMaskedLM",
        license="apache-2.0",
        mask_token=MASK_TOKENS[0],
        mask_tokens=MASK_TOKENS,
        end_of_turn=_TURN_ENDS[0],
        end_of_turn_id=None,
        remote_code={},
        kinds={
            **{"attention_dropout": RATE, "block_size": OPTIONAL_COUNT},
            **{"logit_shift": FLAG, "tie_word_embeddings": FLAG},
        },
        defaults=defaults | options.pop("defaults", {}),
        # Qwen's sliding-window options, which are off
        ignored=("sliding_window", "max_window_layers", "layer_types"),
        scaled_positions=True,
        any_head_dim=True,
        **options,
    )


# Sizes: SmolLM2-135M, Qwen2.5-0.5B and Qwen3-0.6B. Source: the published configurations.
A2D_LLAMA = _family(
    "llama",
    "Llama",
    autoregressive={"smollm2_135m": "HuggingFaceTB/SmolLM2-135M-Instruct"},
    published={},
    published_sizes=Sizes(49152, 576, 30, 9, 3, 1536, tied=True),
    defaults={"max_position_embeddings": 2048},
)
A2D_QWEN2 = _family(
    "qwen2",
    "Qwen2",
    published={
        "qwen2_5_coder_0_5b_mdlm": "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1",
        "qwen2_5_coder_0_5b_bd3lm": "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1",
    },
    published_sizes=Sizes(151936, 896, 24, 14, 2, 4864, tied=True),
    biases=_QKV,
    defaults={"max_position_embeddings": 32768},
)
A2D_QWEN3 = _family(
    "qwen3",
    "Qwen3",
    autoregressive={"qwen3_0_6b": "Qwen/Qwen3-0.6B"},
    published={
        "qwen3_0_6b_mdlm": "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1",
        "qwen3_0_6b_bd3lm": "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1",
    },
    published_sizes=Sizes(151936, 1024, 28, 16, 8, 3072, head_dim=128, tied=True),
    block={**LLAMA_BLOCK, **_QK_NORM},
    defaults={"max_position_embeddings": 32768, "head_dim": 128},
)
A2D = (A2D_LLAMA, A2D_QWEN2, A2D_QWEN3)


def is_autoregressive(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a causal model that stage a2d can adapt."""
    types = [family.transformers_type for family in A2D]
    return config.get("model_type") in types and config.get("is_causal") is not False


def completed(config: Mapping[str, Any], folder: Path, *, is_new: bool) -> dict[str, Any]:
    """Add the ids that an A2D folder keeps in its tokenizer: mask, padding and end of turn.

    Without a mask token, the next free id is that of the token to add. ADDED_MASK is set if its row
    must be initialized: it does not exist, or is_new, the model was autoregressive. Raises
    UserError for a folder without tokenizer files."""
    config, rows = dict(config), config.get("vocab_size")
    if config.get("mask_token_id") is None:
        tokens, count = _tokens(folder)
        named = [tokens[text] for text in MASK_TOKENS if text in tokens]
        config["mask_token_id"] = named[0] if named else count
        if isinstance(rows, int) and rows < count:
            raise UserError(
                f"{folder}: the tokenizer has {count} tokens, the embedding {rows} rows; copy "
                "the model's own tokenizer files"
            )
        if not named and (is_new or rows == count):
            config[ADDED_MASK] = True
        if not named and rows == count:
            config["vocab_size"] = count + 1
        if "eot_token_id" not in config:
            config["eot_token_id"] = next((tokens[x] for x in _TURN_ENDS if x in tokens), None)
        config["eos_token_id"] = _ends(config, folder)
    eos = config.get("eos_token_id")
    if config.get("pad_token_id") is None:
        config["pad_token_id"] = eos[0] if isinstance(eos, list) and eos else eos
    return config


def _ends(config: Mapping[str, Any], folder: Path) -> Any:
    """The end tokens of config.json, with those that only generation_config.json has, as Qwen3."""
    eos = config.get("eos_token_id")
    more = _json(folder / "generation_config.json").get("eos_token_id")
    known, added = (ids if isinstance(ids, list) else [ids] for ids in (eos, more))
    new = [token for token in added if isinstance(token, int) and token not in known]
    return [*(token for token in known if token is not None), *new] if new else eos


def _tokens(folder: Path) -> tuple[dict[str, int], int]:
    """Return the added tokens of a folder's tokenizer and the number of all its tokens."""
    added: dict[str, int] = {}
    ids = [-1]
    options = _json(folder / "tokenizer_config.json")
    for token, entry in (options.get("added_tokens_decoder") or {}).items():
        added[entry["content"]] = int(token)
    added |= _json(folder / "added_tokens.json")
    tokenizer, vocabulary = _json(folder / "tokenizer.json"), _json(folder / "vocab.json")
    added |= {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or ()}
    model = (tokenizer.get("model") or {}).get("vocab") or vocabulary
    ids += model.values() if isinstance(model, dict) else range(len(model))
    ids += added.values()
    if max(ids) < 0:
        raise UserError(
            f"{folder}: no tokenizer, so its mask token is unknown; copy tokenizer.json and "
            "tokenizer_config.json of the model there"
        )
    return added, max(ids) + 1


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.exists() else {}
    return content if isinstance(content, dict) else {}
