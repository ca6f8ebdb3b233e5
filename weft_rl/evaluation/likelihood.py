"""Log-likelihood of an answer under a masked diffusion model."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from weft_rl.diffusion.tensor_checks import require_shape


@torch.no_grad()
def log_likelihood(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    answer_ids: Tensor,
    *,
    draws: int,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    """Estimate a lower bound on log p(answer | prompt) in nats, without bias.

    prompt_ids (P,), answer_ids (L,) long, L >= 1; generator: on the CPU. Each draw masks l answer
    tokens and weights their log-probabilities by L / l, with l uniform on 1 .. L, stratified over
    draws. Raises ValueError for an empty answer. Source: LLaDA, get_log_likelihood."""
    length, start = len(answer_ids), len(prompt_ids)
    require_shape("answer_ids", answer_ids, (length,))
    if length == 0:
        raise ValueError("the answer is empty")
    first = torch.randint(length, (1,), generator=generator)
    counts = (first + torch.arange(draws) * length // draws) % length + 1  # (D,)
    order = torch.rand(draws, length, generator=generator).argsort(dim=1).argsort(dim=1)
    masked = (order < counts[:, None]).to(model.device)  # (D, L)
    weight = (length / counts).to(model.device)
    ids = torch.cat([prompt_ids, answer_ids]).to(model.device)
    total = 0.0
    for rows, factor in zip(masked.split(batch_size), weight.split(batch_size), strict=True):
        noised = ids.repeat(len(rows), 1)
        noised[:, start:] = noised[:, start:].masked_fill(rows, model.config.mask_token_id)
        logits = model(noised).logits[:, start:].float()
        chosen = logits.log_softmax(-1).gather(-1, ids[start:].expand(len(rows), -1)[..., None])
        total += float((factor * (chosen[..., 0] * rows).sum(dim=1)).sum())
    return total / draws
