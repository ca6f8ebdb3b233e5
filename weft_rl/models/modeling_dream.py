"""Dream's network: Qwen2's layers without a causal mask, and logits moved to where they belong.

B batch, L sequence, D hidden, K kept positions, M single places, V vocabulary."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, Qwen2Config, Qwen2Model, Qwen2PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from weft_rl.families.dream import fields
from weft_rl.families.fields import described
from weft_rl.models.configuration_llada import end_tokens
from weft_rl.models.lm_head import Reduce, VocabularyHead


class DreamConfig(Qwen2Config):
    """Architecture of a masked diffusion language model of Dream's family, under Qwen2's names.

    The special ids are Dream-7B's. Source: the published configuration."""

    model_type = "Dream"

    mask_token_id: int = 151666
    bos_token_id: int | None = 151643
    eos_token_id: int | list[int] | None = 151643
    eot_token_id: int | None = 151645  # ends a turn; ends a completion as well
    pad_token_id: int | None = 151643

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration of a config.json's content, of either layout.

        Options that change nothing are left out. Raises UserError as the family's `fields` does."""
        own = fields(config_dict)
        return super().from_dict(described(config_dict) | own, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # read by transformers where it builds the attention mask
        self.is_causal = False
        if self.pad_token_id == self.mask_token_id:
            raise ValueError("DreamConfig: pad_token_id and mask_token_id must differ")

    @property
    def end_token_ids(self) -> list[int]:
        """What ends a completion: end of text, and end of turn where the family has one."""
        return end_tokens(self)


def source_positions(length: int, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """Where the network computes what it says of each position: (B or 1, L) long.

    The network was made from one that predicts the next token, and still does: position i is told
    at i - 1. A row's first visible position, before which there is nothing, is told at itself.
    attention_mask (B, L) or None. Source: Dream's published sampler."""
    place = torch.arange(length, device=device)
    before = (place - 1).clamp(min=0)[None]
    if attention_mask is None:
        return before
    return torch.where(attention_mask.bool()[:, before[0]], before, place)


def rotary_positions(attention_mask: Tensor | None) -> Tensor | None:
    """Positions that count visible tokens only: (B, L) long, hidden ones at 1; None without a mask.

    attention_mask (B, L) or None. Source: Dream's published sampler."""
    if attention_mask is None:
        return None
    visible = attention_mask.long()
    return (visible.cumsum(dim=-1) - 1).masked_fill(visible == 0, 1)


class DreamForMaskedLM(Qwen2PreTrainedModel):
    """Predicts every token from all others: logits at position i are for token i.

    The one place of the family's shift: samplers, estimates and losses see aligned logits.
    Source: Dream (architecture); the tensor names are the published checkpoint's."""

    config_class = DreamConfig

    def __init__(self, config: DreamConfig) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        # attention without a mask asks the layers themselves
        for module in self.model.modules():
            if hasattr(module, "is_causal"):
                module.is_causal = False  # ty: ignore[invalid-assignment] - no parameter
        self.lm_head = VocabularyHead(config.hidden_size, config.vocab_size)
        # TRL writes into it
        self.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id,
            eos_token_id=config.end_token_ids,
            pad_token_id=config.pad_token_id,
        )
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logit_positions: Tensor | None = None,
        logit_rows: Tensor | None = None,
        reduce: Reduce | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Logits for every position, or only for those asked for.

        input_ids (B, L) long; attention_mask (B, L), 0 hides a position from all others;
        logit_positions (K,) or (B, K) long: where the head is computed, or (M,), each in the row of
        logit_rows (M,). Returns an output whose logits are (B, L, V), (B, K, V) or (M, V); with
        `reduce` they are what it makes of them, a few positions at a time.
        Raises ValueError for shapes that do not fit and for L over max_position_embeddings."""
        batch, length = input_ids.shape
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"{length} tokens are more than the model's "
                f"max_position_embeddings={self.config.max_position_embeddings}"
            )
        if attention_mask is not None:
            if attention_mask.shape != (batch, length):
                raise ValueError(
                    f"attention_mask {tuple(attention_mask.shape)} must be {(batch, length)}"
                )
            # without a mask attention takes its fast path
            attention_mask = None if attention_mask.all() else attention_mask
        x = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=rotary_positions(attention_mask),
            use_cache=False,
            return_dict=True,
        ).last_hidden_state  # (B, L, D)
        source = source_positions(length, attention_mask, x.device).expand(batch, -1)
        if logit_rows is not None:
            x = x[logit_rows, source[logit_rows, logit_positions]]
        else:
            if logit_positions is not None:
                source = source.gather(1, logit_positions.expand(batch, -1))
            x = x.take_along_dim(source[:, :, None], dim=1)
        return MaskedLMOutput(logits=self.lm_head(x, reduce))
