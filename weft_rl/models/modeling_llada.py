"""LLaDA's network: a Llama-shaped transformer without a causal mask.

Modules carry upstream's tensor names, so that its checkpoints and adapters load as they are.
B batch, L sequence, D hidden, H heads, d head width, K kept positions, V vocabulary."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from weft_rl.models.configuration_llada import LLaDAConfig
from weft_rl.models.kv_cache import Cache
from weft_rl.models.lm_head import Reduce, VocabularyHead


def rotary_angles(length: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Angles of rotary positions 0 .. length-1: (L, d) float32, both halves alike.

    Source: RoFormer, in the half-split layout of Llama."""
    # in float32 whatever the model's dtype: bfloat16 cannot tell position 256 from 257
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    # as upstream: dividing by theta^e rounds differently, and bfloat16 makes 0.4 of a logit of it
    frequency = 1.0 / theta**exponent
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequency
    return torch.cat([angles, angles], dim=-1)


def rotation_of(angles: Tensor) -> tuple[Tensor, Tensor]:
    """What `rotate` multiplies with, of angles (..., d): cosines, and sines whose first half has
    the other sign."""
    first, second = angles.sin().chunk(2, dim=-1)
    return angles.cos(), torch.cat([-first, second], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + d/2) of x (B, H, L, d) by its angle, in float32, in x's dtype.

    cos, sin (L, d) or (B, 1, L, d) float32, of `rotation_of`."""
    wide = x.float()
    # halves exchanged; few operations, as at batch 1 a GPU waits for each to be started
    return (wide * cos + wide.roll(wide.shape[-1] // 2, -1) * sin).to(x.dtype)


class LLaDABlock(GradientCheckpointingLayer):
    """Pre-norm attention and gated feed-forward layer."""

    def __init__(self, config: LLaDAConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        width, inner = config.hidden_size, config.intermediate_size
        self.head_dim = width // config.num_attention_heads
        self.attn_norm = LlamaRMSNorm(width, config.rms_norm_eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_norm = LlamaRMSNorm(width, config.rms_norm_eps)
        self.ff_proj = nn.Linear(width, inner, bias=False)  # the gate
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.ff_out = nn.Linear(inner, width, bias=False)
        self.act = ACT2FN[config.hidden_act]

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        visible: Tensor | None,
        cache: Cache | None = None,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x (B, W, D), W = L without a cache's window; rotation: cosines and sines (L, d) or
        (B, 1, W, d), or None where positions are learned; visible (B, 1, 1, L) bool or None; kept:
        rows and positions, of one shape, that are asked for. Returns (B, W, D) or (*kept, D)."""
        n = self.attn_norm(x)
        q, k, v = (
            projection(n).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H, L, d)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if cache is not None:
            k, v = cache.exchange(self.layer, k, v)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        attended = attended.transpose(1, 2)  # (B, W, H, d)
        if kept is not None:
            # what follows looks at one position at a time
            x, attended = x[kept], attended[kept]
        x = x + self.attn_out(attended.flatten(-2))
        n = self.ff_norm(x)
        return x + self.ff_out(self.act(self.ff_proj(n)) * self.up_proj(n))


class LLaDATransformer(nn.Module):
    """Embedding, blocks, last norm and vocabulary head, under upstream's names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.wte: nn.Module = nn.Embedding(config.vocab_size, config.hidden_size)
        if not config.rope:
            self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(LLaDABlock(config, n) for n in range(config.num_hidden_layers))
        self.ln_f = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ff_out: nn.Module = VocabularyHead(config.hidden_size, config.vocab_size)


class LLaDAModel(nn.Module):
    """Upstream's outer module: it adds the word `model` to the tensor names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.transformer = LLaDATransformer(config)


class LLaDAForMaskedLM(PreTrainedModel):
    """Predicts every token from all others: logits at position i are for token i, unshifted.

    Source: LLaDA (architecture); the tensor names are the published checkpoint's."""

    config_class = LLaDAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LLaDABlock"]  # noqa: RUF012 - an instance variable in the base class

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        self.model = LLaDAModel(config)
        # TRL writes into it, and a plain PreTrainedModel has none
        self.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id,
            eos_token_id=config.end_token_ids,
            pad_token_id=config.pad_token_id,
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.model.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.model.transformer.wte = value

    def get_output_embeddings(self) -> nn.Module:
        """The vocabulary head."""
        return self.model.transformer.ff_out

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the vocabulary head."""
        self.model.transformer.ff_out = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logit_positions: Tensor | None = None,
        logit_rows: Tensor | None = None,
        cache: Cache | None = None,
        reduce: Reduce | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Logits for every position, or only for those asked for.

        input_ids (B, L) long, or (B, W) of a cache's window; attention_mask (B, L), 0 hides a
        position from all others, and a bool one is taken to hide some; logit_positions (K,) or
        (B, K) long: where in input_ids the head is computed, or (M,), each in the row of
        logit_rows (M,).
        Returns an output whose logits are (B, L, V), or (B, K, V), or (M, V); with `reduce` they
        are what it makes of them, a few positions at a time.
        Raises ValueError for shapes that do not fit and for L over max_position_embeddings."""
        positions = None if cache is None else cache.positions
        length = input_ids.shape[1] if cache is None else cache.keys.shape[3]
        visible = self._visible(attention_mask, len(input_ids), length)
        x = self._embedded(input_ids, attention_mask, positions)
        rotation = None
        if self.config.rope:
            head_dim = self.config.hidden_size // self.config.num_attention_heads
            angles = rotary_angles(length, head_dim, self.config.rope_theta, x.device)
            angles = angles if positions is None else angles[positions][:, None]
            rotation = rotation_of(angles)
        parts, kept = self.model.transformer, None
        if logit_positions is not None:
            if logit_rows is None:
                logit_rows = torch.arange(len(x), device=x.device)[:, None]
            kept = torch.broadcast_tensors(logit_rows, logit_positions)  # (B, K) or (M,) each
        *blocks, last = parts.blocks
        for block in blocks:
            x = block(x, rotation, visible, cache)
        # nothing attends to what the last block says of a position
        x = last(x, rotation, visible, cache, kept)
        return MaskedLMOutput(logits=parts.ff_out(parts.ln_f(x), reduce))

    def _visible(self, attention_mask: Tensor | None, batch: int, length: int) -> Tensor | None:
        """What each layer may attend to: (B, 1, 1, L) bool; None for everything."""
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"{length} tokens are more than the model's "
                f"max_position_embeddings={self.config.max_position_embeddings}"
            )
        if attention_mask is None:
            return None
        if attention_mask.shape != (batch, length):
            raise ValueError(
                f"attention_mask {tuple(attention_mask.shape)} must be {(batch, length)}"
            )
        # without a mask attention takes its fast path; looking whether it hides something waits for
        # the device, which a sampler with its bool mask cannot afford at every step
        if attention_mask.dtype != torch.bool and attention_mask.all():
            return None
        return attention_mask.bool()[:, None, None, :]

    def _embedded(
        self, input_ids: Tensor, attention_mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """Token embeddings, with learned positions where the model has them: (B, W, D)."""
        parts = self.model.transformer
        x = parts.wte(input_ids)
        if self.config.rope:
            return x
        # learned positions are absolute, so they count visible tokens only
        if attention_mask is not None:
            place = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)  # (B, L)
            place = place if positions is None else place.gather(1, positions)
        elif positions is not None:
            place = positions
        else:
            place = torch.arange(input_ids.shape[1], device=input_ids.device)
        return x + parts.wpe(place)

    def empty_cache(self, rows: int, length: int) -> Cache:
        """Room for the keys and values of `rows` sequences of `length` tokens."""
        heads = self.config.num_attention_heads
        width = self.config.hidden_size // heads
        shape = (self.config.num_hidden_layers, rows, heads, length, width)
        weight = self.model.transformer.ln_f.weight
        return Cache(weight.new_zeros(shape), weight.new_zeros(shape), None, None)
