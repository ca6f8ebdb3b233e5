"""Log-probabilities of tokens under a masked diffusion model. B batch, L sequence, V vocabulary."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def reduced_logits(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    logits_to_keep: Tensor | tuple[Tensor, Tensor],
    logits_fn: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """logits_fn of the logits at some positions: all of them at once, or in chunks.

    input_ids, attention_mask: (B, L) long. logits_to_keep: positions, (K,) or (B, K) long, or rows
    and positions, (M,) each. logits_fn: (..., c, V) and the first position's index -> (..., c, *).
    Models of this package (`accepts_logits_fn`) never hold all logits; of others, which may be any
    masked language model with logits (B, L, V), the full logits are computed."""
    inner: Any = getattr(model, "module", model)
    if getattr(inner, "accepts_logits_fn", False):
        return model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            logits_to_keep=logits_to_keep,
            logits_fn=logits_fn,
        ).logits
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    if isinstance(logits_to_keep, tuple):
        return logits_fn(logits[logits_to_keep], 0)
    positions = logits_to_keep.expand(len(input_ids), -1)[..., None]
    return logits_fn(logits.gather(1, positions.expand(-1, -1, logits.shape[-1])), 0)


def masked_nll(
    model: nn.Module, x0: Tensor, xt: Tensor, masked: Tensor, attention_mask: Tensor
) -> Tensor:
    """-log p(x0) of the masked tokens of xt, 0 elsewhere: (B, L) float32.

    x0, xt, attention_mask: (B, L) long. masked: (B, L) bool. Computes logits of masked tokens only,
    in chunks: those of 4,096 LLaDA tokens take 2 GB."""
    targets = x0[masked]  # (M,)

    def token_nll(logits: Tensor, begin: int) -> Tensor:
        ids = targets[begin : begin + len(logits)]
        return F.cross_entropy(widen(logits), ids, reduction="none")

    rows, positions = masked.nonzero(as_tuple=True)
    nll = reduced_logits(model, xt, attention_mask, (rows, positions), token_nll)
    return nll.new_zeros(x0.shape).masked_scatter(masked, nll)


def mask_id_of(model: Any) -> int:
    """Mask token id of a model, also if wrapped for distributed training.

    Raises ValueError if the configuration names none."""
    mask_id = getattr(getattr(model, "module", model).config, "mask_token_id", None)
    if mask_id is None:
        raise ValueError(
            "model.config: no mask_token_id, as of an autoregressive model; set it if the model "
            "is a masked diffusion model"
        )
    return mask_id
