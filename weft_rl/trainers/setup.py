"""Models, adapters and tokenizers as trainers take them: by name or as objects."""

from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from weft_rl.checkpoints.hub import hub_id
from weft_rl.families.a2d import A2D
from weft_rl.models.loading import load_model, require_trained_mask
from weft_rl.models.tokenizer import load_tokenizer


def require_choices(args: TrainingArguments, names: Iterable[str]) -> None:
    """Raise ValueError for the first of these arguments that is none of its Literal's values."""
    hints = get_type_hints(type(args))
    for name in names:
        choices, value = get_args(hints[name]), getattr(args, name)
        if value not in choices:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, choices))}")


def load(
    model: PreTrainedModel | str, args: TrainingArguments, adapters_only: bool
) -> PreTrainedModel:
    """Return the model, loaded if given by name: bfloat16 under adapters on a GPU, else float32."""
    if not isinstance(model, str):
        return model
    half = adapters_only and args.device.type == "cuda"
    network = load_model(model, args.device, torch.bfloat16 if half else torch.float32)
    if not Path(model).is_dir():
        network.name_or_path = hub_id(model)  # adapters record it as their base
    return network


def default_tokenizer(model: PreTrainedModel | str) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of the model's folder or Hub id; None for a model made in memory."""
    if isinstance(model, str):
        return load_tokenizer(model)
    name = getattr(model, "name_or_path", "")
    # the folder of an A2D network may be its autoregressive model's
    is_a2d = any(model.config.model_type in family.model_types for family in A2D)
    return load_tokenizer(name, adapt=is_a2d) if name else None


def wrapped(
    model: PreTrainedModel, peft_config: PeftConfig | None, seed: int
) -> PreTrainedModel | PeftModel:
    """Return the model with a new adapter drawn from the seed, or unchanged without a config."""
    if peft_config is None:
        return model
    require_trained_mask(model, "peft_config")
    if isinstance(model, PeftModel):
        raise ValueError("peft_config: the model has an adapter already; merge it, or leave it out")
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251 - PEFT takes no generator
        # PEFT's wrappers of other task types expect an autoregressive model's methods
        config = copy(peft_config)
        config.task_type = None
        return get_peft_model(model, config)


def has_new_adapter(model: nn.Module) -> bool:
    """Whether the model has LoRA adapters that do not change it, as LoRA initializes them."""
    weights = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    return bool(weights) and not any(bool(weight.any()) for weight in weights)
