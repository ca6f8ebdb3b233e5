"""Dream's network: Qwen2 without a causal mask, with logits shifted to their own positions."""

from transformers import Qwen2Model, Qwen2PreTrainedModel

from weft_rl.models.configuration import DreamConfig
from weft_rl.models.modeling_a2d import AdaptedNetwork


class DreamForMaskedLM(AdaptedNetwork, Qwen2PreTrainedModel):
    """Qwen2, adapted with the shift of an autoregressive model. Source: Dream."""

    config_class = DreamConfig
    backbone = Qwen2Model
