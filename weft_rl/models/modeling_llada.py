"""LLaDA's network, a Llama-like transformer without a causal mask, under upstream's tensor names.

B batch, L sequence, W cache window, D hidden, H heads, d head width, K kept positions, M single
positions, V vocabulary."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from weft_rl.models.configuration import LLaDAConfig, check_inputs, generation_config
from weft_rl.models.kv_cache import Cache
from weft_rl.models.lm_head import LogitsFn, LogitsToKeep, VocabularyHead


def rotary_angles(length: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Return angles of positions 0 .. length-1: (L, d) float32, equal halves. Source: RoFormer."""
    # float32 for every model dtype: bfloat16 does not distinguish positions 256 and 257
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    # as upstream: dividing by theta^e rounds differently, up to 0.4 of a logit in bfloat16
    frequency = 1.0 / theta**exponent
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequency
    return torch.cat([angles, angles], dim=-1)


def rotation_of(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines, and sines with a negated first half, for angles (..., d)."""
    first, second = angles.sin().chunk(2, dim=-1)
    return angles.cos(), torch.cat([-first, second], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + d/2) of x (B, H, L, d) by its angle in float32; returns x's dtype.

    cos, sin (L, d) or (B, 1, L, d) float32, from `rotation_of`."""
    wide = x.float()
    # roll swaps the halves in few kernels: launches dominate on a GPU at batch size 1
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
        keep: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return (B, W, D), or (*keep, D) at the rows and positions `keep` of equal shape.

        x (B, W, D), W = L without a cache window; rotation: cosines and sines (L, d) or (B, 1, W,
        d), None with learned positions; visible (B, 1, 1, L) bool or None."""
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
        if keep is not None:
            # the remaining operations are per position
            x, attended = x[keep], attended[keep]
        x = x + self.attn_out(attended.flatten(-2))
        n = self.ff_norm(x)
        return x + self.ff_out(self.act(self.ff_proj(n)) * self.up_proj(n))


class LLaDATransformer(nn.Module):
    """Embedding, blocks, final norm and vocabulary head under upstream's names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.wte: nn.Module = nn.Embedding(config.vocab_size, config.hidden_size)
        if not config.rope:
            self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(LLaDABlock(config, n) for n in range(config.num_hidden_layers))
        self.ln_f = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ff_out: nn.Module = VocabularyHead(config.hidden_size, config.vocab_size)


class LLaDAModel(nn.Module):
    """Upstream's outer module, which adds a prefix to the tensor names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.transformer = LLaDATransformer(config)


class LLaDAForMaskedLM(PreTrainedModel):
    """Bidirectional predictor: the logits at position i are for token i. Source: LLaDA."""

    config_class = LLaDAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    accepts_logits_fn = True  # see reduced_logits
    _supports_sdpa = True
    _no_split_modules = ["LLaDABlock"]  # noqa: RUF012 - an instance variable in the base class

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        self.model = LLaDAModel(config)
        self.generation_config = generation_config(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.model.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.model.transformer.wte = value

    def get_output_embeddings(self) -> nn.Module:
        """Return the vocabulary head."""
        return self.model.transformer.ff_out

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the vocabulary head."""
        self.model.transformer.ff_out = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logits_to_keep: LogitsToKeep = None,
        cache: Cache | None = None,
        logits_fn: LogitsFn | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Return the logits of every position, or of `logits_to_keep` only.

        input_ids (B, L) long, or (B, W) with a cache window; attention_mask (B, L), 0 hides a
        position; logits_to_keep: positions in input_ids, (K,) or (B, K), or (rows, positions), (M,)
        each. Returns logits (B, L, V), (B, K, V) or (M, V), or chunked values of `logits_fn`.
        Raises ValueError as check_inputs."""
        positions = None if cache is None else cache.positions
        length = input_ids.shape[1] if cache is None else cache.keys.shape[3]
        check_inputs(self.config, attention_mask, len(input_ids), length)
        visible = _visible(attention_mask)
        x = self._embed(input_ids, attention_mask, positions)
        rotation = None
        if self.config.rope:
            head_dim = self.config.hidden_size // self.config.num_attention_heads
            angles = rotary_angles(length, head_dim, self.config.rope_theta, x.device)
            angles = angles if positions is None else angles[positions][:, None]
            rotation = rotation_of(angles)
        transformer, keep = self.model.transformer, logits_to_keep
        if isinstance(keep, Tensor):
            keep = (torch.arange(len(x), device=x.device)[:, None], keep)
        if keep is not None:
            keep = torch.broadcast_tensors(*keep)  # (B, K) or (M,) each
        *blocks, last = transformer.blocks
        for block in blocks:
            x = block(x, rotation, visible, cache)
        # no layer attends to the output of the last block
        x = last(x, rotation, visible, cache, keep)
        return MaskedLMOutput(logits=transformer.ff_out(transformer.ln_f(x), logits_fn))

    def _embed(
        self, input_ids: Tensor, attention_mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """Token embeddings, plus learned positions if the model has them: (B, W, D)."""
        transformer = self.model.transformer
        x = transformer.wte(input_ids)
        if self.config.rope:
            return x
        # learned positions are absolute, so they count visible tokens only
        if attention_mask is not None:
            index = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)  # (B, L)
            index = index if positions is None else index.gather(1, positions)
        elif positions is not None:
            index = positions
        else:
            index = torch.arange(input_ids.shape[1], device=input_ids.device)
        return x + transformer.wpe(index)

    def empty_cache(self, rows: int, length: int) -> Cache:
        """Allocate a cache for the keys and values of `rows` sequences of `length` tokens."""
        heads = self.config.num_attention_heads
        width = self.config.hidden_size // heads
        shape = (self.config.num_hidden_layers, rows, heads, length, width)
        weight = self.model.transformer.ln_f.weight
        return Cache(weight.new_zeros(shape), weight.new_zeros(shape), None, None)


def _visible(attention_mask: Tensor | None) -> Tensor | None:
    """Positions that every layer may attend to: (B, 1, 1, L) bool; None for all."""
    # without a mask, attention takes its fast path; all() synchronizes, so samplers pass bool
    if attention_mask is None or (attention_mask.dtype != torch.bool and attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :]
