"""What is wrong with a tokenizer, or too large for a device, said before weights are loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from weft_rl.config.model import LoraConfig
from weft_rl.errors import UserError
from weft_rl.families.base import Family
from weft_rl.families.registry import family_of, read_config
from weft_rl.families.shape import ModelShape
from weft_rl.families.tokenizer_check import misfit
from weft_rl.models.cgroups import available_memory

_GIB = 2**30
# Of errors that have no class of their own: CUDA's, cuBLAS's, the CPU allocator's and the system's.
_ALLOCATIONS = ("out of memory", "ALLOC_FAILED", "allocate memory")


def require_memory(
    folder: Path, dtype: torch.dtype, device: torch.device, *, nf4: bool = False
) -> None:
    """Raise UserError when the weights alone do not fit what is free."""
    config = read_config(folder)
    family, _ = family_of(config, folder)
    sizes = family.sizes(config)
    if nf4:
        needed = ModelShape(family, sizes, LoraConfig(0), "nf4", False, True).weight_bytes()
    else:
        needed = family.count(sizes) * dtype.itemsize
    free = free_memory(device)
    if free is not None and needed > free:
        raise UserError(
            f"model={folder}: its weights take {needed / _GIB:.1f} GiB as "
            f"{'nf4' if nf4 else dtype}, and {device} has {free / _GIB:.1f} GiB free; weft-rl plan "
            "says what a run needs and what to change"
        )


def require_room(
    model_config: Any, lengths: Mapping[str, int], gen_length: int, option: str, cure: str
) -> None:
    """Raise UserError when the longest prompt and a completion have more tokens than the model has
    positions. lengths: tokens of each record's prompt; option: what set the completion's length."""
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is None or not lengths:
        return
    record = max(lengths, key=lengths.__getitem__)
    if lengths[record] + gen_length > positions:
        raise UserError(
            f"{option}: with the {lengths[record]} tokens of prompt {record} more than the model's "
            f"{positions} (max_position_embeddings); {cure}"
        )


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a device; None where that cannot be told."""
    if device.type == "cuda":
        # what the stages before have given back is kept for the next one
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return available_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, a device's or the machine's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = isinstance(error, OSError | RuntimeError)
    return told and any(words in str(error) for words in _ALLOCATIONS)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Fit a tokenizer to its folder's config.json: the mask token is set if it was not.

    Raises UserError for one of another vocabulary: with ids beyond the model's, or for less than
    half of them, or a special token whose id is not the model's."""
    config = read_config(folder)
    family, _ = family_of(config, folder)
    named = {name: getattr(tokenizer, name) for name in ("eos_token", "bos_token", "pad_token")}
    problem = misfit(config, family, tokenizer.get_vocab(), named)
    # files alone do not tell: a tokenizer's class may have one of its own
    if config.get("eos_token_id") is not None and tokenizer.eos_token is None:
        problem = f"eos_token_id={config['eos_token_id']}, but the tokenizer has no eos_token"
    if problem is not None:
        raise UserError(f"model={folder}: {problem}; copy the model's own tokenizer files")
    _check_end_of_turn(tokenizer, folder, family)
    if tokenizer.mask_token is None:
        tokenizer.mask_token = family.mask_token


def _check_end_of_turn(tokenizer: PreTrainedTokenizerBase, folder: Path, family: Family) -> None:
    """Published configurations do not name it: the class's default must be this tokenizer's."""
    found = tokenizer.get_vocab().get(family.end_of_turn)
    expected = read_config(folder).get("eot_token_id", family.end_of_turn_id)
    if found is not None and expected not in (None, found):
        raise UserError(
            f"model={folder}: the tokenizer has {family.end_of_turn} as {found}, the model ends a "
            f'turn with {expected}; put "eot_token_id": {found} into its config.json'
        )
