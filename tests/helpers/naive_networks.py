"""LLaDA's and Dream's networks from their formulas, for bitwise comparison of logits."""

import torch
from torch.nn import functional as F


def norm(x, weight, eps):
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def angles(positions, width, theta):
    """(..., L) positions -> (..., L, width), multiplied by the inverse frequencies in float32."""
    inverse = 1.0 / (theta ** (torch.arange(0, width, 2).float() / width))
    half = positions.float()[..., None] * inverse
    return torch.cat([half, half], dim=-1)


def turned(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def heads(x, width):
    return x.unflatten(-1, (-1, width)).transpose(1, 2)


def llada(weights, config, ids, mask=None):
    """Logits (B, L, V). Positions start at the row's beginning, including padding."""
    top, width = "model.transformer.", config["d_model"] // config["n_heads"]
    angle = angles(torch.arange(ids.shape[1]), width, config["rope_theta"])
    bias = None
    if mask is not None and not mask.all():
        bias = (1 - mask.float())[:, None, None, :] * torch.finfo(torch.float32).min
        bias = bias.to(weights[f"{top}wte.weight"].dtype).clamp(min=-3e38)
    x = weights[f"{top}wte.weight"][ids]
    for n in range(config["n_layers"]):
        own = {name: weights[f"{top}blocks.{n}.{name}.weight"] for name in BLOCK}
        normed = norm(x, own["attn_norm"], config["rms_norm_eps"])
        q, k, v = (heads(F.linear(normed, own[f"{name}_proj"]), width) for name in "qkv")
        q, k = (turned(part.float(), angle.cos(), angle.sin()).to(x.dtype) for part in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + F.linear(attended.transpose(1, 2).flatten(2), own["attn_out"])
        normed = norm(x, own["ff_norm"], config["rms_norm_eps"])
        gate = F.silu(F.linear(normed, own["ff_proj"]))
        x = x + F.linear(gate * F.linear(normed, own["up_proj"]), own["ff_out"])
    x = norm(x, weights[f"{top}ln_f.weight"], config["rms_norm_eps"])
    return F.linear(x, weights[f"{top}ff_out.weight"])


BLOCK = (
    *("attn_norm", "q_proj", "k_proj", "v_proj", "attn_out", "ff_norm", "ff_proj", "up_proj"),
    "ff_out",
)


def dream(weights, config, ids, mask=None):
    """Logits (B, L, V), each for the next position."""
    count = config["num_attention_heads"]
    width, shared = config["hidden_size"] // count, count // config["num_key_value_heads"]
    positions, seen = torch.arange(ids.shape[1])[None], None
    if mask is not None and not mask.all():
        positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
        seen = torch.logical_and(mask[:, None, None, :], mask[:, None, :, None])
    x = weights["model.embed_tokens.weight"][ids]
    angle = angles(positions, width, config["rope_theta"])[:, None]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}."

        def linear(x, name, layer=layer):
            return F.linear(x, weights[f"{layer}{name}.weight"], weights.get(f"{layer}{name}.bias"))

        normed = norm(x, weights[f"{layer}input_layernorm.weight"], config["rms_norm_eps"])
        q, k, v = (heads(linear(normed, f"self_attn.{name}_proj"), width) for name in "qkv")
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        k, v = (part.repeat_interleave(shared, dim=1) for part in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + linear(attended.transpose(1, 2).flatten(2), "self_attn.o_proj")
        after = weights[f"{layer}post_attention_layernorm.weight"]
        normed = norm(x, after, config["rms_norm_eps"])
        gated = F.silu(linear(normed, "mlp.gate_proj")) * linear(normed, "mlp.up_proj")
        x = x + linear(gated, "mlp.down_proj")
    x = norm(x, weights["model.norm.weight"], config["rms_norm_eps"])
    return F.linear(x, weights["lm_head.weight"])
