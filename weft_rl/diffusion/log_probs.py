"""Log-probabilities of sampled completions under a masked diffusion model."""

import torch
from torch import Tensor

from weft_rl.diffusion.tensor_checks import require_shape, widen


def token_log_probs(logits: Tensor, tokens: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and the entropy of its prediction, in nats: two (N, T).

    logits: (M, T, V), one prediction for each group of rows. tokens: (N, T) long. index: (N,) long,
    the prediction of each row. Both float32, or float64 for float64 logits; the entropy has no
    gradient. Raises ValueError if the shapes do not match."""
    require_shape("logits", logits, (len(logits), tokens.shape[1], logits.shape[-1]))
    require_shape("index", index, (len(tokens),))
    log_p = widen(logits).log_softmax(-1)
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    # indexed, not logits[index]: a copy per row would be N * T * V
    picked = log_p[index[:, None], positions[None, :], tokens]
    with torch.no_grad():
        # in place: after the logits this is the largest tensor
        entropy = -log_p.exp().mul_(log_p.nan_to_num(neginf=0.0)).sum(-1)
    return picked, entropy[index]


def distinct_rows(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the first of each kind of row of keys (N, ...), and each row's kind.

    Returns (M,) and (N,) long: keys[first][kind] equals keys. With it one forward pass serves all
    completions of a prompt, since diffu-GRPO's masked input depends on the prompt and its mask."""
    distinct, kind = keys.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(keys), device=keys.device)
    first = torch.full((len(distinct),), len(keys), device=keys.device)
    return first.scatter_reduce(0, kind, rows, "amin"), kind
