"""Memory and time of the loss with all logits at once or in chunks.

Usage: python benchmarks/loss_memory.py [quick]. Measures head and loss alone, with all positions
masked, and training steps of a small network with half of the tokens masked. Both variants
alternate; the CPU allocator counts memory."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from machine import save
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))

from allocations import allocated

from weft_rl.diffusion.log_probs import masked_nll, token_log_probs
from weft_rl.diffusion.losses import denoising_loss, sequence_losses
from weft_rl.models import LLaDAConfig, LLaDAForMaskedLM
from weft_rl.models import lm_head as head
from weft_rl.models.loading import fresh_model

HIDDEN = 256
# (vocabulary, positions): a small one that fits one chunk, scaling with both, LLaDA's vocabulary
SHAPES = [(512, 4096), (32768, 1024), (32768, 4096), (126464, 1024), (126464, 4096)]


def cold_start(x0: Tensor) -> head.LogitsFn:
    """Loss per token (1, c)."""

    def of_part(logits: Tensor, begin: int) -> Tensor:
        ids = x0[begin : begin + logits.shape[1]]
        return F.cross_entropy(logits[0].float(), ids, reduction="none")[None]

    return of_part


def rl(x0: Tensor) -> head.LogitsFn:
    """Log-probability and entropy per token (1, c, 2)."""
    place = torch.zeros(1, dtype=torch.long)

    def of_part(logits: Tensor, begin: int) -> Tensor:
        ids = x0[None, begin : begin + logits.shape[1]]
        return torch.stack(token_log_probs(logits, ids, place), dim=2)

    return of_part


LOSSES = {"cold start": cold_start, "RL": rl}
STEP = "whole step"


def network(vocab_size: int) -> LLaDAForMaskedLM:
    """Six layers; the head is a larger share than in LLaDA-8B."""
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 6, "num_attention_heads": 4}
    special = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = LLaDAConfig(vocab_size=vocab_size, intermediate_size=704, **sizes, **special)
    return fresh_model(config, 0)


def whole_step(model: LLaDAForMaskedLM, x0: Tensor, *, parts: bool) -> None:
    """Forward and backward pass of a cold-start step with half of the tokens masked."""
    generator = torch.Generator().manual_seed(1)
    masked = torch.rand(x0.shape, generator=generator) < 0.5
    xt, half, every = x0.masked_fill(masked, 0), torch.full(x0.shape, 0.5), torch.ones_like(masked)
    if parts:
        nll = masked_nll(model, x0, xt, masked, every.long())
        loss = sequence_losses(nll, masked, half, every).mean()
    else:
        loss = denoising_loss(model(xt).logits, x0, masked, half, every)
    loss.backward()
    model.zero_grad()


def passes(made: head.VocabularyHead, x: Tensor, logits_fn: head.LogitsFn, *, parts: bool) -> None:
    """Forward and backward pass, in chunks or at once."""
    kept = head.LOGITS_TOGETHER
    head.LOGITS_TOGETHER = kept if parts else sys.maxsize
    try:
        made(x, logits_fn).sum().backward()
    finally:
        head.LOGITS_TOGETHER = kept
    x.grad = None


def both(run: Callable[..., None], rounds: int) -> dict[str, dict[str, float]]:
    """Peak bytes and median seconds of run(parts=...), both variants alternating."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    peaks = {parts: allocated(partial(run, parts=parts)) for parts in seconds}
    for turn in range(rounds):
        for parts in (True, False) if turn % 2 else (False, True):
            begun = time.perf_counter()
            run(parts=parts)
            seconds[parts].append(time.perf_counter() - begun)
    return {
        "bytes": {"parts": peaks[True], "at once": peaks[False]},
        "seconds": {"parts": median(seconds[True]), "at once": median(seconds[False])},
    }


def measured(loss: str, vocab_size: int, length: int, rounds: int) -> dict[str, object]:
    """Measure a loss and its head, or a whole step."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(2, vocab_size, (length,), generator=generator)
    positions = length // 2 if loss == STEP else length
    size = max(1, head.LOGITS_TOGETHER // vocab_size)
    found: dict[str, object] = {"loss": loss, "vocab_size": vocab_size, "positions": length}
    found["parts"] = -(-positions // size)
    if loss == STEP:
        return found | both(partial(whole_step, network(vocab_size), x0[None]), rounds)
    made = head.VocabularyHead(HIDDEN, vocab_size).requires_grad_(False)
    with torch.no_grad():
        made.weight.normal_(std=0.02, generator=generator)
    x = torch.randn(1, length, HIDDEN, generator=generator).requires_grad_()
    return found | both(partial(passes, made, x, LOSSES[loss](x0)), rounds)


def main(*, quick: bool) -> None:
    """Measure all shapes, or the three smaller ones with `quick`, and write the results."""
    shapes = SHAPES[: 3 if quick else None]
    rows = []
    for loss in (*LOSSES, STEP):
        for vocab_size, length in shapes:
            rows.append(measured(loss, vocab_size, length, rounds=3))
    result = {"hidden": HIDDEN, "together": head.LOGITS_TOGETHER, "rows": rows}
    save("loss_memory", result, quick=quick)


if __name__ == "__main__":
    main(quick=sys.argv[1:] == ["quick"])
