"""Log-probabilities of sampled completions under a masked diffusion model."""

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_shape, widen


def token_log_probs(logits: Tensor, tokens: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of its prediction, in nats: two (N, T).

    logits: (M, T, V). tokens: (N, T) long. index: (N,) long, each row's prediction in logits. Both
    float32, or float64 for float64 logits. The entropy has no gradient. Raises ValueError for
    mismatched shapes."""
    require_shape("logits", logits, (len(logits), tokens.shape[1], logits.shape[-1]))
    require_shape("index", index, (len(tokens),))
    log_p = widen(logits).log_softmax(-1)
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    # not logits[index]: a copy per row would be N * T * V
    picked = log_p[index[:, None], positions[None, :], tokens]
    with torch.no_grad():
        # in place: the largest tensor after the logits
        entropy = -log_p.exp().mul_(log_p.nan_to_num(neginf=0.0)).sum(-1)
    return picked, entropy[index]


def distinct_rows(keys: Tensor) -> tuple[Tensor, Tensor]:
    """First index (M,) of each distinct row of keys (N, ...), and each row's index into it (N,).

    Both long; keys[first][kind] equals keys. One forward pass then serves all completions of a
    prompt: diffu-GRPO's masked input depends only on the prompt and its mask."""
    distinct, kind = keys.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(keys), device=keys.device)
    first = torch.full((len(distinct),), len(keys), device=keys.device)
    return first.scatter_reduce(0, kind, rows, "amin"), kind
