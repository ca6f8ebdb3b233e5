"""d1's diffu-GRPO as a plain loop: the baseline of rl_step.py.

As in d1, the sampler computes all logits at every step in train mode with autograd, never stops
early, and draws float64 noise for the full canvas. Each row has its own prompt mask, so every
policy processes every row in every pass, with logits at every position. The reference is a second
model."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# d1's prompt mask probability, and clip and KL coefficients of its Sudoku script
PROMPT_MASK, CLIP, KL = 0.15, 0.5, 0.04


def sample(
    model: nn.Module, prompts: Tensor, length: int, steps: int, temperature: float, mask_id: int
) -> Tensor:
    """LLaDA's sampler with one block and low-confidence remasking: (N, P + T)."""
    x = F.pad(prompts, (0, length), value=mask_id)
    width = prompts.shape[1]
    per_step = [length // steps + (i < length % steps) for i in range(steps)]
    for count in per_step:
        hidden = x == mask_id
        logits = model(input_ids=x).logits
        noise = torch.rand(logits.shape, dtype=torch.float64)
        noisy = logits.double().exp() / (-noise.log()) ** temperature
        candidate = noisy.argmax(-1)
        p = logits.softmax(-1).gather(-1, candidate[..., None])[..., 0]
        confidence = torch.where(hidden, p, -torch.inf)
        confidence[:, :width] = -torch.inf
        chosen = confidence.topk(count, dim=-1).indices
        x = x.scatter(1, chosen, candidate.gather(1, chosen))
    return x.detach()


def log_probs(
    model: nn.Module, prompts: Tensor, completions: Tensor, seeds: Sequence[int], mask_id: int
) -> Tensor:
    """One-step estimates of all passes in one batch, one mask per row: (K, N, T)."""
    canvases = []
    for seed in seeds:
        draw = torch.rand(prompts.shape, generator=torch.Generator().manual_seed(seed))
        hidden = prompts.masked_fill(draw < PROMPT_MASK, mask_id)
        canvases.append(F.pad(hidden, (0, completions.shape[1]), value=mask_id))
    logits = model(input_ids=torch.cat(canvases)).logits[:, prompts.shape[1] :]
    tokens = completions.repeat(len(seeds), 1)
    picked = -F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return picked.view(len(seeds), *completions.shape)


def iteration(
    model: nn.Module,
    reference: nn.Module,
    optimizer: torch.optim.Optimizer,
    prompts: Tensor,
    score: Callable[[Tensor], Tensor],
    *,
    group: int,
    passes: int,
    length: int,
    steps: int,
    temperature: float,
    max_grad_norm: float,
    seed: int,
) -> None:
    """One rollout and its optimizer steps; prompts (N, P), each repeated `group` times."""
    mask_id, end = model.config.mask_token_id, model.config.eos_token_id
    model.train()
    tokens = sample(model, prompts, length, steps, temperature, mask_id)[:, prompts.shape[1] :]
    ended = (tokens == end).long().cumsum(-1)
    answer = (ended - (tokens == end).long()) == 0  # up to and including the first end token
    rewards = score(tokens).view(-1, group)
    advantages = (rewards - rewards.mean(1, keepdim=True)).flatten()[:, None]
    seeds = [seed * passes + k for k in range(passes)]
    with torch.no_grad():
        old = log_probs(model, prompts, tokens, seeds, mask_id)
        ref = log_probs(reference, prompts, tokens, seeds, mask_id)
    for k in range(passes):
        new = log_probs(model, prompts, tokens, seeds[k : k + 1], mask_id)[0]
        ratio = (new - old[k]).exp()
        loss = -torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
        d = ref[k] - new
        loss = loss + KL * (d.exp() - d - 1)
        optimizer.zero_grad()
        ((loss * answer).sum() / answer.sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
