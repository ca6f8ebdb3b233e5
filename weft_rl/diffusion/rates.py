"""Token masking rates beta: how fast each answer token is masked."""

from collections.abc import Iterator
from typing import get_args

import torch
from torch import Tensor

from weft_rl.diffusion.recipes import RATE_STATISTIC, RateKind, Statistic
from weft_rl.diffusion.tensor_checks import NonFiniteError, require_everywhere, require_shape, widen

# Floor of a rate relative to the sequence mean. Below it the masking probability underflows and the
# weight explodes: at 1/100 and t = 0.001 the weight is already 100,000.
_FLOOR = 0.01

# Logits reduced at a time; all logits of a 4,096-token LLaDA sequence take 2 GB. CPU: 2 MiB in
# float32 fit the cache (20% faster than 16 MiB). GPU: 64 MiB, 132 rows of 126,464; smaller chunks
# are launch-bound.
_CPU_CHUNK, _CHUNK = 2**19, 2**24


@torch.no_grad()
def token_entropy(logits: Tensor) -> Tensor:
    """Entropy -sum_v p_v log p_v of each prediction in nats: (..., V) -> (...), without gradient.

    float64 for float64 logits, else float32, reduced in chunks. A logit of -inf is a token of
    probability 0. Raises NonFiniteError with the index for NaN, +inf or only -inf logits. Source:
    WeFT Eq. 12."""
    entropy = widen(logits.new_empty(logits.shape[:-1]))
    for rows, out in _row_chunks(logits, entropy):
        log_p = widen(rows).log_softmax(-1)
        # a token of probability 0 adds 0, not 0 * -inf
        torch.sum(log_p.exp().mul_(log_p.nan_to_num_(neginf=0.0)), -1, out=out)
    _require_distributions(entropy)
    # some backends round log_softmax above 0: the sum is -1e-8, whose root is NaN
    return entropy.neg_().clamp_(min=0)


@torch.no_grad()
def token_nll(logits: Tensor, x0: Tensor) -> Tensor:
    """-log p(x0) of each prediction in nats: (..., V), (...) long -> (...), without gradient.

    Dtype, memory and errors as for token_entropy; inf where x0 has probability 0."""
    require_shape("x0", x0, logits.shape[:-1])
    nll = widen(logits.new_empty(x0.shape))
    for rows, ids, out in _row_chunks(logits, x0, nll):
        out.copy_(-widen(rows).log_softmax(-1).gather(-1, ids[:, None])[:, 0])
    _require_distributions(nll)
    return nll


def _row_chunks(logits: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of a few rows of logits (..., V) and of `others` (...) at a time."""
    if logits.dim() == 1:
        yield from _row_chunks(logits[None], *(part[None] for part in others))
    elif logits.dim() > 2:
        for parts in zip(logits, *others, strict=True):
            yield from _row_chunks(*parts)
    else:
        chunk = _CPU_CHUNK if logits.device.type == "cpu" else _CHUNK
        rows = max(1, chunk // logits.shape[-1])
        yield from zip(*(part.split(rows) for part in (logits, *others)), strict=True)


def _require_distributions(reduced: Tensor) -> None:
    # log_softmax spreads one bad logit over its row, so the reduction shows it
    rule = "NaN or +inf among them, or nothing but -inf"
    require_everywhere("logits", ~reduced.isnan(), rule, NonFiniteError)


def token_rates(kind: RateKind, logits: Tensor, x0: Tensor, answer: Tensor) -> Tensor:
    """Masking rate of each answer token from a prediction with the full answer masked.

    kind: "uniform" 1; "sqrt_entropy" root of the entropy in nats (WeFT); "entropy" (WeFT, Table 5);
    "nll" -log p(x0_i) (WeFT Eq. 14). logits: (B, L, V). x0: (B, L) long. answer: (B, L) bool.
    Returns (B, L) >= 0, 0 outside the answer, without gradient; float64 for float64 logits, else
    float32. As token_weight of a uniformly masked loss, "sqrt_entropy" is WeFT (SW), Eq. 15-16.
    Raises ValueError for an unknown kind or mismatched shapes. Raises NonFiniteError with row and
    position for non-finite logits, which "uniform" does not read."""
    require_shape("logits", logits, (*x0.shape, logits.shape[-1]))
    require_shape("answer", answer, x0.shape)
    if kind not in get_args(RateKind):
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(get_args(RateKind))}")
    statistic = RATE_STATISTIC[kind]
    if statistic is None:
        values = widen(logits.new_ones(x0.shape))
    else:
        values = token_statistic(statistic, logits, x0)
    return torch.where(answer, rates_of(kind, values), 0.0)


def token_statistic(statistic: Statistic, logits: Tensor, x0: Tensor) -> Tensor:
    """Entropy or -log p(x0) of each prediction: (..., V), (...) long -> (...)."""
    return token_nll(logits, x0) if statistic == "nll" else token_entropy(logits)


def rates_of(kind: RateKind, values: Tensor) -> Tensor:
    """Masking rates from the kind's statistic, of any shape; 1 for "uniform"."""
    if kind == "uniform":
        return torch.ones_like(values)
    return values.sqrt() if kind == "sqrt_entropy" else values


def mean_rate(beta: Tensor, answer: Tensor) -> Tensor:
    """Mean rate beta_ref of each answer, 0 if empty: (B, L), (B, L) -> (B, 1). WeFT, Section 4."""
    require_shape("answer", answer, beta.shape)
    count = answer.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(answer, beta, 0.0).sum(-1, keepdim=True) / count


def usable_rates(beta: Tensor, answer: Tensor) -> Tensor:
    """Rates with a floor at 1/100 of the answer's mean: (B, L), (B, L) bool -> (B, L).

    Below the floor 1 / t_i explodes. All-zero rates become uniform; rates outside the answer are 0.
    Raises NonFiniteError with row and position for a NaN, infinite (nll of an impossible token) or
    negative rate in the answer."""
    require_shape("answer", answer, beta.shape)
    good = ~answer | ((beta >= 0) & beta.isfinite())
    require_everywhere("beta", good, "a rate must be finite and >= 0", NonFiniteError)
    mean = mean_rate(beta, answer)
    floored = torch.where(mean > 0, torch.maximum(beta, _FLOOR * mean), torch.ones_like(beta))
    return torch.where(answer, floored, 0.0)
