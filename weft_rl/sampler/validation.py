"""Input checks of the sampler."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from weft_rl.config.sampler import SamplerConfig
from weft_rl.diffusion.tensor_checks import require_shape
from weft_rl.errors import UserError
from weft_rl.models.configuration import end_tokens


def special_ids(model: nn.Module) -> tuple[int, list[int]]:
    """Return the mask token and the end tokens, end of text first.

    Raises ValueError if the config lacks them or also uses the mask token as padding or end."""
    config: Any = model.config
    mask_id, end_ids = getattr(config, "mask_token_id", None), end_tokens(config)
    if mask_id is None or not end_ids:
        eos_id = getattr(config, "eos_token_id", None)
        raise ValueError(
            f"model.config: mask_token_id={mask_id}, eos_token_id={eos_id}: sampling needs both; "
            "set them from the tokenizer"
        )
    if mask_id in (*end_ids, getattr(config, "pad_token_id", None)):
        raise ValueError(
            f"model.config: mask_token_id={mask_id} is also the pad or end token; use another id"
        )
    return mask_id, end_ids


def check_input(
    model: nn.Module,
    prompt_ids: Tensor,
    visible: Tensor,
    seeds: Sequence[int],
    config: SamplerConfig,
    mask_id: int,
) -> None:
    """Raise ValueError for invalid input, UserError for a canvas beyond the model's positions."""
    if prompt_ids.dim() != 2:
        raise ValueError(f"prompt_ids must be (B, P), got shape {tuple(prompt_ids.shape)}")
    require_shape("attention_mask", visible, prompt_ids.shape)
    if len(seeds) != len(prompt_ids):
        raise ValueError(f"seeds: {len(seeds)} for {len(prompt_ids)} prompts; give one per row")
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and prompt_ids.shape[1] + config.gen_length > longest:
        raise UserError(
            f"sampler.gen_length={config.gen_length}: exceeds the model's {longest} positions "
            f"(max_position_embeddings) with a prompt of {prompt_ids.shape[1]} tokens; shorten "
            "either"
        )
    size = getattr(model.config, "vocab_size", None) or 2**63 - 1
    problems = {
        "is empty; a prompt needs a token": ~visible.bool().any(dim=1),
        "is padded on the right; pad on the left": (visible.diff(dim=1) < 0).any(dim=1),
        f"has the mask token {mask_id}; pad with another": (prompt_ids == mask_id).any(dim=1),
        f"has a token outside of the vocabulary, 0 to {size - 1}": (
            ((prompt_ids < 0) | (prompt_ids >= size)).any(dim=1)
        ),
    }
    for problem, rows in problems.items():
        if rows.any():
            raise ValueError(f"prompt_ids: row {int(rows.nonzero()[0])} {problem}")
