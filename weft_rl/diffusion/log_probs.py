"""Log-probabilities of sampled completions under a masked diffusion model."""

import torch
from torch import Tensor

from weft_rl.diffusion.precision import widen
from weft_rl.diffusion.tensor_checks import require_shape


def token_log_probs(logits: Tensor, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token of each row, and the entropy of its prediction, in nats.

    logits (M, T, V): one prediction for each group of rows; tokens (N, T) long; places (N,) long:
    which prediction a row belongs to. Returns two (N, T) in float32, or float64 as the logits are;
    the entropy is without gradient.
    Raises ValueError when the shapes do not fit."""
    require_shape("logits", logits, (len(logits), tokens.shape[1], logits.shape[-1]))
    require_shape("places", places, (len(tokens),))
    log_p = widen(logits).log_softmax(-1)
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    # indexed, not logits[places]: a copy per row would be N * T * V
    picked = log_p[places[:, None], positions[None, :], tokens]
    with torch.no_grad():
        # in place: beside the logits this is most of what there is
        entropy = -log_p.exp().mul_(log_p.nan_to_num(neginf=0.0)).sum(-1)
    return picked, entropy[places]


def distinct_rows(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of keys (N, ...) and each row's place among them.

    Returns the index of the first of each kind (M,) and places (N,), both long:
    keys[first][places] equals keys. With it one forward serves all completions of a prompt, since
    diffu-GRPO's masked input depends on the prompt and its mask alone."""
    distinct, places = keys.unique(dim=0, return_inverse=True)
    every = torch.arange(len(keys), device=keys.device)
    first = torch.full((len(distinct),), len(keys), device=keys.device)
    return first.scatter_reduce(0, places, every, "amin"), places
