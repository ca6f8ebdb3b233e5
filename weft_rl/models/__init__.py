"""The LLaDA family as transformers classes, registered with the Auto* factories."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.modeling import LLaDAForMaskedLM

AutoConfig.register(LLaDAConfig.model_type, LLaDAConfig, exist_ok=True)
# TRL loads reference models through AutoModelForCausalLM, whatever the attention
for factory in (AutoModelForMaskedLM, AutoModelForCausalLM):
    factory.register(LLaDAConfig, LLaDAForMaskedLM, exist_ok=True)

__all__ = ["LLaDAConfig", "LLaDAForMaskedLM"]
