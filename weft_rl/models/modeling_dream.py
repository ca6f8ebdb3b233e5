"""Dream's network: Qwen2 without a causal mask, with logits shifted to their own positions.

B batch, L sequence, D hidden, K kept positions, M single positions, V vocabulary."""

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Model, Qwen2PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from weft_rl.models.configuration import DreamConfig, check_inputs, generation_config
from weft_rl.models.lm_head import LogitsFn, LogitsToKeep, VocabularyHead


def source_positions(length: int, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """Return the position whose output predicts each position: (B or 1, L) long.

    That is i - 1 for position i, but a row's first visible position predicts itself. attention_mask
    (B, L) or None. Source: Dream's published sampler."""
    positions = torch.arange(length, device=device)
    before = (positions - 1).clamp(min=0)[None]
    if attention_mask is None:
        return before
    return torch.where(attention_mask.bool()[:, before[0]], before, positions)


def rotary_positions(attention_mask: Tensor | None) -> Tensor | None:
    """Return positions that count visible tokens, 1 where masked: (B, L) long or None.

    attention_mask (B, L) or None. Source: Dream's published sampler."""
    if attention_mask is None:
        return None
    visible = attention_mask.long()
    return (visible.cumsum(dim=-1) - 1).masked_fill(visible == 0, 1)


class DreamForMaskedLM(Qwen2PreTrainedModel):
    """Bidirectional predictor of every token: the logits at position i are for token i.

    Only this class handles the family's shift. Source: Dream (architecture, tensor names)."""

    config_class = DreamConfig
    accepts_logits_fn = True  # see reduced_logits

    def __init__(self, config: DreamConfig) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        # without a mask, attention reads the flag of each layer
        for module in self.model.modules():
            if hasattr(module, "is_causal"):
                module.is_causal = False  # ty: ignore[invalid-assignment] - no parameter
        self.lm_head = VocabularyHead(config.hidden_size, config.vocab_size)
        self.generation_config = generation_config(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logits_to_keep: LogitsToKeep = None,
        logits_fn: LogitsFn | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Return the logits of every position, or of `logits_to_keep` only.

        input_ids (B, L) long; attention_mask (B, L), 0 hides a position; logits_to_keep (K,) or (B,
        K) long, or (rows, positions), (M,) each. Returns logits (B, L, V), (B, K, V) or (M, V), or
        chunked values of `logits_fn`. Raises ValueError as check_inputs."""
        batch, length = input_ids.shape
        check_inputs(self.config, attention_mask, batch, length)
        if attention_mask is not None and attention_mask.all():
            attention_mask = None
        x = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=rotary_positions(attention_mask),
            use_cache=False,
            return_dict=True,
        ).last_hidden_state  # (B, L, D)
        source = source_positions(length, attention_mask, x.device).expand(batch, -1)
        if isinstance(logits_to_keep, tuple):
            rows, positions = logits_to_keep
            x = x[rows, source[rows, positions]]
        else:
            if logits_to_keep is not None:
                source = source.gather(1, logits_to_keep.expand(batch, -1))
            x = x.take_along_dim(source[:, :, None], dim=1)
        return MaskedLMOutput(logits=self.lm_head(x, logits_fn))
