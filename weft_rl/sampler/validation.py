"""What a sampler is given: the model's special tokens, and refusals before the first forward."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from weft_rl.config.sampler import SamplerConfig
from weft_rl.diffusion.tensor_checks import require_shape
from weft_rl.errors import UserError
from weft_rl.models.configuration_llada import end_tokens


def special_ids(model: nn.Module) -> tuple[int, list[int]]:
    """The mask token and the tokens that end a completion, end of text first.

    Raises ValueError for a configuration without them, or whose padding is the mask token."""
    config: Any = model.config
    mask_id, end_ids = getattr(config, "mask_token_id", None), end_tokens(config)
    if mask_id is None or not end_ids:
        raise ValueError(
            f"model.config: mask_token_id={mask_id}, eos_token_id="
            f"{getattr(config, 'eos_token_id', None)}: "
            "sampling needs both; set them from the tokenizer"
        )
    if mask_id in (*end_ids, getattr(config, "pad_token_id", None)):
        raise ValueError(
            f"model.config: mask_token_id={mask_id} is its pad or end token as well; "
            "masks must be a token of their own"
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
    """Raise ValueError for what would fail or go wrong silently later.

    UserError for canvases that the model has no positions for: lengths are options."""
    if prompt_ids.dim() != 2:
        raise ValueError(f"prompt_ids must be (B, P), got shape {tuple(prompt_ids.shape)}")
    require_shape("attention_mask", visible, prompt_ids.shape)
    if len(seeds) != len(prompt_ids):
        raise ValueError(f"seeds: {len(seeds)} for {len(prompt_ids)} prompts; give one to each row")
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and prompt_ids.shape[1] + config.gen_length > longest:
        raise UserError(
            f"sampler.gen_length={config.gen_length}: with a prompt's {prompt_ids.shape[1]} tokens "
            f"more than the model's {longest} (max_position_embeddings); cut the prompts or "
            "generate less"
        )
    rules = {
        "is empty; a prompt needs a token": ~visible.bool().any(dim=1),
        "is padded on the right; pad on the left": (visible.diff(dim=1) < 0).any(dim=1),
        f"holds the mask token {mask_id}; pad with another": (prompt_ids == mask_id).any(dim=1),
    }
    size = getattr(model.config, "vocab_size", None)
    if size is not None:
        strange = ((prompt_ids < 0) | (prompt_ids >= size)).any(dim=1)
        rules[f"holds a token outside of the vocabulary, 0 to {size - 1}"] = strange
    for complaint, rows in rules.items():
        if rows.any():
            raise ValueError(f"prompt_ids: row {int(rows.nonzero()[0])} {complaint}")
