"""The model families as transformers classes, registered with the Auto* factories."""

from pkgutil import resolve_name
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from weft_rl.families import FAMILIES
from weft_rl.models.configuration_llada import LLaDAConfig
from weft_rl.models.modeling_dream import DreamConfig, DreamForMaskedLM
from weft_rl.models.modeling_llada import LLaDAForMaskedLM


def _register(kind: str, model: Any) -> None:
    config = model.config_class
    if config.model_type != kind:
        # the factories go by the class, and a saved configuration has its class's model_type
        config = type(config.__name__, (config,), {"model_type": kind})
    AutoConfig.register(kind, config, exist_ok=True)
    # TRL loads reference models through AutoModelForCausalLM, whatever the attention
    for factory in (AutoModelForMaskedLM, AutoModelForCausalLM):
        factory.register(config, model, exist_ok=True)


for family in FAMILIES:
    for kind in family.model_types:
        _register(kind, resolve_name(family.network))

__all__ = ["DreamConfig", "DreamForMaskedLM", "LLaDAConfig", "LLaDAForMaskedLM"]
