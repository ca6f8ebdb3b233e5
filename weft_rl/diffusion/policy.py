"""Log-probabilities of sampled completions under a masked diffusion model."""

import torch
from torch import Tensor

from weft_rl.diffusion.shapes import require_shape


def token_log_probs(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each given token, and the entropy of its prediction, in nats.

    logits (B, T, V); tokens (B, T) long. Returns two (B, T) float32.
    Raises ValueError when the shapes do not fit."""
    require_shape("logits", logits, (*tokens.shape, logits.shape[-1]))
    log_p = logits.float().log_softmax(-1)
    entropy = -(log_p.exp() * log_p.nan_to_num(neginf=0.0)).sum(-1).detach()
    return log_p.gather(-1, tokens[..., None])[..., 0], entropy


def distinct_rows(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of keys (N, ...) and each row's place among them.

    Returns the index of the first of each kind (M,) and places (N,), both long:
    keys[first][places] equals keys. With it one forward serves all completions of a prompt, since
    diffu-GRPO's masked input depends on the prompt and its mask alone."""
    distinct, places = keys.unique(dim=0, return_inverse=True)
    every = torch.arange(len(keys), device=keys.device)
    first = torch.full((len(distinct),), len(keys), device=keys.device)
    return first.scatter_reduce(0, places, every, "amin"), places
