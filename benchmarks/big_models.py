"""CPU models with a realistic vocabulary for sampler.py."""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import MaskedLMOutput

from weft_rl.models import LLaDAConfig, LLaDAForMaskedLM
from weft_rl.models.kv_cache import Cache
from weft_rl.models.lm_head import LogitsFn, LogitsToKeep
from weft_rl.models.loading import fresh_model

# d >= 512, 8 layers, LLaDA's vocabulary
SHAPE = {
    "vocab_size": 126464,
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
# Weight of the constant dimension: puts logits of unused tokens far below all others.
_UNUSED = -100.0
# Embedding of the constant dimension: too small to change a norm; ln_f scales it to 1.
_CONSTANT = 1e-3


class EndsWhereTold(LLaDAForMaskedLM):
    """LLaDA whose first prompt token is the position where the end tokens start."""

    prompt_length = 0

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logits_to_keep: LogitsToKeep = None,
        cache: Cache | None = None,
        logits_fn: LogitsFn | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """LLaDA's logits, with the end token's raised after the row's end."""
        output = super().forward(input_ids, attention_mask, logits_to_keep, cache, logits_fn)
        first = self.prompt_length + input_ids[:, 0]
        if isinstance(logits_to_keep, tuple):
            rows, positions = logits_to_keep
            over = positions >= first[rows]
        else:
            over = torch.arange(input_ids.shape[1]) >= first[:, None]
        output.logits[..., self.config.eos_token_id] += 1e4 * over
        return output


def random_model(prompt_length: int) -> EndsWhereTold:
    """Random weights in the big shape."""
    plain = fresh_model(LLaDAConfig(**SHAPE), 0)
    plain.__class__ = EndsWhereTold
    plain.prompt_length = prompt_length
    return plain.eval()


def widened(small: LLaDAForMaskedLM) -> LLaDAForMaskedLM:
    """A trained small model's function in the big shape: its weights padded with zeros.

    Norm weights and epsilon compensate for the zero dimensions. Unknown tokens get very low logits.
    Positions must be learned: rotary frequencies would depend on the head width."""
    if small.config.rope:
        raise ValueError("only a model with learned positions can be widened")
    old, factor = small.config, SHAPE["hidden_size"] / small.config.hidden_size
    ids = {name: getattr(old, name) for name in ("mask_token_id", "eos_token_id", "pad_token_id")}
    config = LLaDAConfig(
        **SHAPE,
        **ids,
        bos_token_id=old.bos_token_id,
        eot_token_id=old.eot_token_id,
        rope=False,
        rms_norm_eps=old.rms_norm_eps / factor,
    )
    model = fresh_model(config, 0)
    source, target = small.state_dict(), model.state_dict()
    for name, wide in target.items():
        wide.zero_()
        narrow = source.get(name)
        if narrow is None:
            continue
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            wide[_head_rows(old), : narrow.shape[1]] = narrow
            if "q_proj" in name:  # attention divides by sqrt(head width)
                wide *= (_head_width(SHAPE) / _head_width(old.to_dict())) ** 0.5
        elif name.endswith("attn_out.weight"):
            wide[: narrow.shape[0], _head_rows(old)] = narrow
        elif narrow.dim() == 1:
            wide[: len(narrow)] = narrow / factor**0.5
        else:
            wide[: narrow.shape[0], : narrow.shape[1]] = narrow
    constant, words = old.hidden_size, old.vocab_size
    target["model.transformer.wte.weight"][:, constant] = _CONSTANT
    target["model.transformer.ln_f.weight"][constant] = 1 / _CONSTANT
    target["model.transformer.ff_out.weight"][words:, constant] = _UNUSED
    return model.eval()


def _head_width(config: dict[str, Any]) -> int:
    return config["hidden_size"] // config["num_attention_heads"]


def _head_rows(old: LLaDAConfig) -> Tensor:
    """Rows of the small model's head dimensions in the wide projections."""
    narrow, wide = _head_width(old.to_dict()), _head_width(SHAPE)
    return (torch.arange(old.num_attention_heads)[:, None] * wide + torch.arange(narrow)).flatten()
