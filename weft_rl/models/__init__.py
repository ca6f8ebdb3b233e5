"""Model families as transformers classes, registered with the Auto* factories."""

from pkgutil import resolve_name

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from weft_rl.families import FAMILIES
from weft_rl.families.base import Family
from weft_rl.models.configuration import (
    A2DLlamaConfig,
    A2DQwen2Config,
    A2DQwen3Config,
    DreamConfig,
    LLaDAConfig,
)
from weft_rl.models.modeling_a2d import (
    A2DLlamaForMaskedLM,
    A2DQwen2ForMaskedLM,
    A2DQwen3ForMaskedLM,
)
from weft_rl.models.modeling_dream import DreamForMaskedLM
from weft_rl.models.modeling_llada import LLaDAForMaskedLM


def register(family: Family) -> None:
    """Register a family's model with the Auto* factories under each of its model types."""
    model = resolve_name(family.network)
    for model_type in family.model_types:
        config = model.config_class
        if config.model_type != model_type:
            # the factories look up the class; a saved configuration has its class's model_type
            config = type(config.__name__, (config,), {"model_type": model_type})
        AutoConfig.register(model_type, config, exist_ok=True)
        # TRL loads reference models through AutoModelForCausalLM regardless of the attention
        for factory in (AutoModelForMaskedLM, AutoModelForCausalLM):
            factory.register(config, model, exist_ok=True)


for family in FAMILIES:
    register(family)

__all__ = [
    "A2DLlamaConfig",
    "A2DLlamaForMaskedLM",
    "A2DQwen2Config",
    "A2DQwen2ForMaskedLM",
    "A2DQwen3Config",
    "A2DQwen3ForMaskedLM",
    "DreamConfig",
    "DreamForMaskedLM",
    "LLaDAConfig",
    "LLaDAForMaskedLM",
]
