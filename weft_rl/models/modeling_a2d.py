"""Networks adapted from autoregressive ones: Llama, Qwen2 and Qwen3 without a causal mask.

B batch, L sequence, D hidden, K kept positions, M single positions, V vocabulary."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    LlamaModel,
    LlamaPreTrainedModel,
    PreTrainedModel,
    Qwen2Model,
    Qwen2PreTrainedModel,
    Qwen3Model,
    Qwen3PreTrainedModel,
)
from transformers.modeling_outputs import MaskedLMOutput

from weft_rl.models.configuration import (
    A2DLlamaConfig,
    A2DQwen2Config,
    A2DQwen3Config,
    check_inputs,
    generation_config,
)
from weft_rl.models.lm_head import LogitsFn, LogitsToKeep, VocabularyHead

# Positions that each position attends to, (L, L) bool, for a length and a device.
AttentionPattern = Callable[[int, torch.device], Tensor]


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


class AdaptedNetwork(PreTrainedModel):
    """Bidirectional predictor of every token: the logits at position i are for token i.

    A shift of the family's network is handled here only. Source: dllm, Dream (tensor names)."""

    accepts_logits_fn = True  # see reduced_logits
    backbone: ClassVar[type[PreTrainedModel]]
    _tied_weights_keys: Any = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = self.backbone(config)
        # without a mask, attention reads the flag of each layer
        for module in self.model.modules():
            if hasattr(module, "is_causal"):
                module.is_causal = False  # ty: ignore[invalid-assignment] - no parameter
        self.lm_head: nn.Module = VocabularyHead(config.hidden_size, config.vocab_size)
        self.generation_config = generation_config(config)
        # replaces full attention, such as while a causal model is adapted; set by the caller
        self.attention_pattern: AttentionPattern | None = None
        # whether the mask token was added by the loader, so that its row is untrained
        self.has_new_mask_token = False
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
            attention_mask=self._attention(attention_mask, length, input_ids.device),
            position_ids=rotary_positions(attention_mask),
            use_cache=False,
            return_dict=True,
        ).last_hidden_state  # (B, L, D)
        if self.config.logit_shift:
            x = _unshifted(x, attention_mask, logits_to_keep)
        elif isinstance(logits_to_keep, tuple):
            x = x[logits_to_keep]
        elif logits_to_keep is not None:
            x = x.take_along_dim(logits_to_keep.expand(batch, -1)[:, :, None], dim=1)
        return MaskedLMOutput(logits=self.lm_head(x, logits_fn))

    def _attention(
        self, attention_mask: Tensor | None, length: int, device: torch.device
    ) -> Tensor | None:
        """The mask of a pattern or of blocks, (B or 1, 1, L, L); else attention_mask."""
        size, pattern = self.config.block_size, self.attention_pattern
        if size is None and pattern is None:
            return attention_mask
        if pattern is not None:
            visible = pattern(length, device)[None]
        else:
            positions = rotary_positions(attention_mask)
            if positions is None:
                positions = torch.arange(length, device=device)[None]
            block = positions // size
            visible = block[:, :, None] >= block[:, None, :]
        if attention_mask is not None:
            visible = visible & attention_mask.bool()[:, None, :]
        # a hidden position attends to itself: softmax over nothing is NaN
        visible = (visible | torch.eye(length, dtype=torch.bool, device=device))[:, None]
        implementation = self.config._attn_implementation
        if implementation == "sdpa":
            return visible
        if implementation != "eager":
            raise ValueError(
                f"attn_implementation={implementation!r}: blocks and annealing need sdpa or eager"
            )
        hidden = torch.finfo(self.dtype).min  # eager attention adds the mask
        return torch.zeros(visible.shape, dtype=self.dtype, device=device).masked_fill(
            ~visible, hidden
        )


def _unshifted(x: Tensor, attention_mask: Tensor | None, keep: LogitsToKeep) -> Tensor:
    """Hidden states that predict the positions `keep`: (B, L, D), (B, K, D) or (M, D)."""
    batch, length = x.shape[:2]
    source = source_positions(length, attention_mask, x.device).expand(batch, -1)
    if isinstance(keep, tuple):
        rows, positions = keep
        return x[rows, source[rows, positions]]
    if keep is not None:
        source = source.gather(1, keep.expand(batch, -1))
    return x.take_along_dim(source[:, :, None], dim=1)


class A2DLlamaForMaskedLM(AdaptedNetwork, LlamaPreTrainedModel):
    """Llama, adapted."""

    config_class = A2DLlamaConfig
    backbone = LlamaModel


class A2DQwen2ForMaskedLM(AdaptedNetwork, Qwen2PreTrainedModel):
    """Qwen2, adapted: biases on queries, keys and values."""

    config_class = A2DQwen2Config
    backbone = Qwen2Model


class A2DQwen3ForMaskedLM(AdaptedNetwork, Qwen3PreTrainedModel):
    """Qwen3, adapted: queries and keys are normalized per head."""

    config_class = A2DQwen3Config
    backbone = Qwen3Model
