"""The model families as transformers classes, registered with the Auto* factories."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from weft_rl.models.configuration import LLaDAConfig
from weft_rl.models.dream import DreamConfig, DreamForMaskedLM
from weft_rl.models.modeling import LLaDAForMaskedLM

for config, model in ((LLaDAConfig, LLaDAForMaskedLM), (DreamConfig, DreamForMaskedLM)):
    AutoConfig.register(config.model_type, config, exist_ok=True)
    # TRL loads reference models through AutoModelForCausalLM, whatever the attention
    for factory in (AutoModelForMaskedLM, AutoModelForCausalLM):
        factory.register(config, model, exist_ok=True)

__all__ = ["DreamConfig", "DreamForMaskedLM", "LLaDAConfig", "LLaDAForMaskedLM"]
