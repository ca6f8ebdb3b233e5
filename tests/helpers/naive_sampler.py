"""LLaDA's published sampler for one row, in plain loops: the oracle of weft_rl.sampler."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Commitment:
    step: int
    position: int
    token: int
    confidence: float


def naive_sample(
    logits_of: Callable[[list[int]], torch.Tensor],  # ids of length L -> (L, V) float32
    prompt: list[int],
    mask_id: int,
    *,
    gen_length: int,
    block_length: int,
    steps: int,
    temperature: float,
    cfg_scale: float,
    token_draw: Callable[[int, int], float],  # step, position in the completion -> uniform
    position_draw: Callable[[int, int], float] | None,  # the same; None: by confidence
) -> tuple[list[int], list[Commitment]]:
    x = list(prompt) + [mask_id] * gen_length
    history: list[Commitment] = []
    blocks = gen_length // block_length
    step = 0
    for block in range(blocks):
        first = len(prompt) + block * block_length
        left = block_length
        for remaining_steps in range(steps // blocks, 0, -1):
            # the ceiling puts the larger quotas first
            quota = math.ceil(left / remaining_steps)
            left -= quota
            logits = guided(logits_of, x, len(prompt), mask_id, cfg_scale)
            best: list[tuple[float, int, int]] = []
            for i in range(first, first + block_length):
                if x[i] != mask_id:
                    continue
                draw = token_draw(step, i - len(prompt))
                token = candidate(logits[i].tolist(), draw, temperature, mask_id)
                confidence = logits[i].softmax(dim=-1)[token].item()
                if position_draw is not None:
                    confidence = position_draw(step, i - len(prompt))
                best.append((-confidence, i, token))
            for negative, i, token in sorted(best)[:quota]:
                x[i] = token
                history.append(Commitment(step, i - len(prompt), token, -negative))
            step += 1
    return x[len(prompt) :], history


def guided(
    logits_of: Callable[[list[int]], torch.Tensor],
    x: list[int],
    prompt_length: int,
    mask_id: int,
    cfg_scale: float,
) -> torch.Tensor:
    """u + (w + 1)(c - u), where u sees a masked prompt."""
    conditional = logits_of(x)
    if cfg_scale == 0:
        return conditional
    unconditional = logits_of([mask_id] * prompt_length + x[prompt_length:])
    return unconditional + (cfg_scale + 1) * (conditional - unconditional)


def candidate(logits: list[float], draw: float, temperature: float, mask_id: int) -> int:
    """Argmax of the logits, or a draw from softmax(logits / T), excluding the mask."""
    words = [token for token in range(len(logits)) if token != mask_id]
    if temperature == 0:
        return max(words, key=lambda token: logits[token])
    top = max(logits[token] for token in words)
    weights = [math.exp((logits[token] - top) / temperature) for token in words]
    left = draw * sum(weights)
    for token, weight in zip(words, weights, strict=True):
        left -= weight
        if left < 0:
            return token
    return words[-1]
