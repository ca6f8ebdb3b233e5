"""Likelihood of answers under a masked diffusion model. B batch, L sequence, D draws."""

from collections import defaultdict
from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weft_rl.diffusion.log_probs import mask_id_of, masked_nll
from weft_rl.diffusion.tensor_checks import checked_answer, require_shape
from weft_rl.seeding import seed_for


@torch.no_grad()
def log_likelihood(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    answer_ids: Tensor,
    *,
    draws: int,
    batch_size: int,
    generator: torch.Generator,
    cfg_scale: float = 0.0,
) -> float:
    """Estimate a lower bound on log p(answer | prompt) in nats, without bias.

    prompt_ids (P,), answer_ids (L,) long, L >= 1; generator: on the CPU. Each draw masks l answer
    tokens and weights their log-probabilities by L / l, with l uniform on 1 .. L, stratified over
    draws. cfg_scale: guidance w of the logits, u + (w + 1)(c - u), with u from a masked prompt.
    Raises ValueError for an empty answer. Source: LLaDA, get_log_likelihood."""
    length, start = len(answer_ids), len(prompt_ids)
    require_shape("answer_ids", answer_ids, (length,))
    if length == 0:
        raise ValueError("the answer is empty")
    masked, weight = (part.to(model.device) for part in _draw_masks(length, draws, generator))
    ids = torch.cat([prompt_ids, answer_ids]).to(model.device)
    total = 0.0
    for rows, factor in zip(masked.split(batch_size), weight.split(batch_size), strict=True):
        noised = ids.repeat(len(rows), 1)
        noised[:, start:] = noised[:, start:].masked_fill(rows, model.config.mask_token_id)
        logits = model(noised).logits[:, start:].float()
        if cfg_scale:
            noised[:, :start] = model.config.mask_token_id
            without = model(noised).logits[:, start:].float()
            logits = without + (cfg_scale + 1) * (logits - without)
        chosen = logits.log_softmax(-1).gather(-1, ids[start:].expand(len(rows), -1)[..., None])
        total += float((factor * (chosen[..., 0] * rows).sum(dim=1)).sum())
    return total / draws


@torch.no_grad()
def nelbo(
    model: nn.Module,
    input_ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
    *,
    num_mc_samples: int = 32,
    seed: int | Sequence[int] = 0,
) -> Tensor:
    """Estimate an upper bound on -log p(answer | prompt) of each row in nats, without bias: (B,).

    input_ids (B, L) long; labels (B, L), -100 outside the answer; attention_mask (B, L), 0 on
    padding; default: 1 everywhere. num_mc_samples: masks per row, one forward pass each. seed: of
    the masks, equal for equal answer lengths and seeds; a sequence has one per row. The model's
    mode is restored. Raises ValueError for mismatched shapes and rows without an answer. Source:
    LLaDA, Eq. 6 (the number of masked tokens is uniform on 1 .. answer length, stratified).

    >>> import torch
    >>> from weft_rl import nelbo
    >>> from weft_rl.models import LLaDAConfig, LLaDAForMaskedLM
    >>> size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> ids = {"vocab_size": 32, "mask_token_id": 31, "eos_token_id": 1, "pad_token_id": 1}
    >>> model = LLaDAForMaskedLM(LLaDAConfig(**size, **ids, intermediate_size=32))
    >>> input_ids = torch.tensor([[5, 6, 7, 8, 9, 1]])
    >>> labels = torch.tensor([[-100, -100, 7, 8, 9, 1]])
    >>> tuple(nelbo(model, input_ids, labels).shape)
    (1,)
    """
    visible, answer = checked_answer(input_ids, labels, attention_mask)
    rows = len(input_ids)
    seeds = [seed_for(seed, row) for row in range(rows)] if isinstance(seed, int) else [*seed]
    if len(seeds) != rows:
        raise ValueError(f"seed: {len(seeds)} for {rows} rows; give one per row")
    masked = answer.new_zeros(num_mc_samples, *answer.shape)  # (D, B, L)
    weight = torch.zeros(num_mc_samples, rows, device=input_ids.device)
    for row, inside in enumerate(answer):
        generator = torch.Generator().manual_seed(seeds[row])
        chosen, factor = _draw_masks(int(inside.sum()), num_mc_samples, generator)
        masked[:, row, inside] = chosen.to(answer.device)
        weight[:, row] = factor.to(answer.device)
    mask_id, training = mask_id_of(model), model.training
    model.eval()
    total = torch.zeros(rows, device=input_ids.device)
    try:
        for chosen, factor in zip(masked, weight, strict=True):
            xt = input_ids.masked_fill(chosen, mask_id)
            total += factor * masked_nll(model, input_ids, xt, chosen, visible).sum(-1)
    finally:
        model.train(training)
    return total / num_mc_samples


def _draw_masks(length: int, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Masks (D, length) bool and their weights (D,): length over the number of masked tokens."""
    first = torch.randint(length, (1,), generator=generator)
    counts = (first + torch.arange(draws) * length // draws) % length + 1  # (D,)
    order = torch.rand(draws, length, generator=generator).argsort(dim=1).argsort(dim=1)
    return order < counts[:, None], length / counts


def unigram_entropy(texts: Sequence[Sequence[int]]) -> float:
    """Return the entropy of token frequencies in nats per token; texts have equal weight.

    No model without context has a lower cross-entropy on these tokens."""
    share: defaultdict[int, float] = defaultdict(float)
    for tokens in texts:
        for token in tokens:
            share[token] += 1 / (len(tokens) * len(texts))
    return -sum(p * log(p) for p in share.values())
