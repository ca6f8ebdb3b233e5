"""LLaDA's published sampler, batched, without early stop: the baseline of sampler.py and gpu.py."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def published_sample(
    model: nn.Module,
    prompt_ids: Tensor,
    *,
    gen_length: int,
    block_length: int,
    steps: int,
    temperature: float = 0.0,
    max_steps: int | None = None,
) -> Tensor:
    """Canvases (B, P + T) after all steps, or after max_steps."""
    mask_id, width = model.config.mask_token_id, prompt_ids.shape[1]
    x = nn.functional.pad(prompt_ids, (0, gen_length), value=mask_id)
    blocks = gen_length // block_length
    per_block = steps // blocks
    base, extra = divmod(block_length, per_block)
    for step in range(steps if max_steps is None else max_steps):
        block, inside = divmod(step, per_block)
        masked = x == mask_id
        logits = model(input_ids=x).logits  # (B, L, V)
        scores = logits
        if temperature:
            # as published: float64 noise for the whole canvas and vocabulary
            noise = torch.rand_like(logits, dtype=torch.float64)
            scores = logits.double().exp() / (-noise.log()) ** temperature
        candidate = scores.argmax(dim=-1)
        confidence = logits.softmax(dim=-1).gather(-1, candidate[..., None])[..., 0]
        confidence[:, width + (block + 1) * block_length :] = -torch.inf
        confidence = confidence.where(masked, -torch.inf)
        quota = base + (inside < extra)
        for row in range(len(x)):
            chosen = confidence[row].topk(quota).indices
            x[row, chosen] = candidate[row, chosen]
    return x
