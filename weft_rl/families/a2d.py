"""A2D: Llama, Qwen2 and Qwen3 without a causal mask, under their own tensor names.

Source: dllm (ZHZisZZ/dllm), its a2d pipeline; published as Tiny-A2D."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from weft_rl.errors import UserError
from weft_rl.families.base import LLAMA_BLOCK, SIZE_FIELDS, Family, Sizes
from weft_rl.families.fields import FLAG, OPTIONAL_COUNT, RATE
from weft_rl.io.safe_files import parsing, read_json

# Names of a mask token, in order of preference; the first is added where there is none.
MASK_TOKENS = ("<|mask|>", "<|MASK|>", "<|mdm_mask|>", "[MASK]", "<mask>")
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
# Fields of a completed configuration: no file names a mask token; its row must be initialized.
GUESSED_MASK, ADDED_MASK = "guessed_mask_token", "added_mask_token"
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
        required=(*(x for x in SIZE_FIELDS if x != "num_key_value_heads"), "eos_token_id"),
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
    run_on="SmolLM2-135M-Instruct",
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
    """Add the ids that an A2D folder keeps in its tokenizer: mask, end of text and turn, padding.

    If no file names a mask token, its id is the next free one, and GUESSED_MASK is set. ADDED_MASK
    is set too if its row must be initialized: it does not exist, or is_new, the model was
    autoregressive. Raises UserError for a missing or damaged tokenizer."""
    config, rows = dict(config), config.get("vocab_size")
    lacking = [name for name in ("mask_token_id", "eos_token_id") if config.get(name) is None]
    tokens = _tokens(folder) if lacking or "eot_token_id" not in config else None
    if tokens is not None:
        config["eos_token_id"] = _ends(config, tokens, folder)
        if "eot_token_id" not in config:
            config["eot_token_id"] = next(
                (tokens.ids[text] for text in _TURN_ENDS if text in tokens.ids), None
            )
    if config.get("mask_token_id") is None:
        if tokens is None:
            raise UserError(
                f"model={folder}: no tokenizer, so its mask token is unknown; copy tokenizer.json "
                "and tokenizer_config.json of the model there"
            )
        if isinstance(rows, int) and rows < tokens.count:
            raise UserError(
                f"model={folder}: the tokenizer has {tokens.count} tokens, the embedding {rows} "
                "rows; copy the model's own tokenizer files"
            )
        names = [text for text in (tokens.mask, *MASK_TOKENS) if text and text in tokens.ids]
        config["mask_token_id"] = tokens.ids[names[0]] if names else tokens.count
        if not names:
            is_missing = rows == tokens.count
            config |= {GUESSED_MASK: True, "vocab_size": tokens.count + 1 if is_missing else rows}
            config |= {ADDED_MASK: True} if is_new or is_missing else {}
    eos = config.get("eos_token_id")
    if config.get("pad_token_id") is None:
        config["pad_token_id"] = eos[0] if isinstance(eos, list) and eos else eos
    return config


class _Tokens(NamedTuple):
    ids: Mapping[str, int]
    count: int
    mask: str | None  # as the tokenizer's files name them
    eos: str | None


def _ends(config: Mapping[str, Any], tokens: _Tokens, folder: Path) -> Any:
    """End tokens of config.json, or the tokenizer's, and those of generation_config.json only."""
    eos = config.get("eos_token_id")
    if eos is None and tokens.eos is not None:
        eos = tokens.ids.get(tokens.eos)
    more = _json(folder / "generation_config.json").get("eos_token_id")
    known, added = (ids if isinstance(ids, list) else [ids] for ids in (eos, more))
    new = [token for token in added if isinstance(token, int) and token not in known]
    return [*(token for token in known if token is not None), *new] if new else eos


def _tokens(folder: Path) -> _Tokens | None:
    """Read the tokens of a tokenizer's JSON files; None without any file of a tokenizer.

    Raises UserError for damaged files, and without a vocabulary in JSON."""
    options, special = (
        _json(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    with parsing(folder / "tokenizer.json"):
        tokenizer = _json(folder / "tokenizer.json")
        model = (tokenizer.get("model") or {}).get("vocab") or _json(folder / "vocab.json")
        if not isinstance(model, dict):  # Unigram: pieces with their scores
            model = {piece: index for index, (piece, _) in enumerate(model)}
        ids = dict(model) | {
            entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or ()
        }
    with parsing(folder / "added_tokens.json"):
        ids |= _json(folder / "added_tokens.json")
    with parsing(folder / "tokenizer_config.json"):
        names = {**special, **{name: text for name, text in options.items() if text}}
        mask, eos = (_content(names.get(name)) for name in ("mask_token", "eos_token"))
        added = options.get("added_tokens_decoder") or {}
        ids |= {_content(entry): int(token) for token, entry in added.items()}
        if not all(type(text) is str and type(token) is int for text, token in ids.items()):
            raise TypeError("a token is not a text with a whole number")
    if not ids and not (folder / "tokenizer.model").exists():
        return None
    if not model:
        raise UserError(
            f"model={folder}: its tokenizer has no tokenizer.json; write one with transformers: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    return _Tokens(ids, max(ids.values()) + 1, mask, eos)


def _content(token: Any) -> Any:
    """The text of a token that is stored as a text or an object."""
    return token["content"] if isinstance(token, dict) else token


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object; copy it again")
    return content
