"""Log-probabilities of masked views of N completions.

D views of each, P prompt tokens, T canvas tokens, C longest completion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from weft_rl.config.rl import MasksConfig
from weft_rl.diffusion import logprob_estimators as estimators
from weft_rl.diffusion.log_probs import distinct_rows, reduced_logits, token_log_probs
from weft_rl.diffusion.logprob_estimators import MaskedViews
from weft_rl.diffusion.noise import mask_tokens
from weft_rl.seeding import seed_for


@dataclass(frozen=True)
class RolloutBatch:
    """Prompts and completions of a rollout."""

    prompt_ids: Tensor  # (N, P) long, padded on the left
    prompt_mask: Tensor  # (N, P), 0 on padding
    completion_ids: Tensor  # (N, C) long
    answer: Tensor  # (N, T) bool, tokens up to the end
    canvas: Tensor  # (N, T) long, completion, then the sampler's tokens
    unmask_step: Tensor | None  # (N, T) long, sampler step of each token, if traced

    @classmethod
    def of(cls, inputs: Mapping[str, Any], gen_length: int) -> "RolloutBatch":
        """Build from TRL's dictionary of a slice, with `canvas` and `unmask_step` if traced."""
        ids, mask = inputs["completion_ids"], inputs["completion_mask"].bool()
        padding = (0, gen_length - ids.shape[1])
        return cls(
            inputs["prompt_ids"],
            inputs["prompt_mask"],
            ids,
            nn.functional.pad(mask, padding),
            inputs.get("canvas", nn.functional.pad(ids, padding)),
            inputs.get("unmask_step"),
        )


def draw_views(
    estimator: str, rows: RolloutBatch, seeds: Tensor, masks: MasksConfig, block_length: int
) -> MaskedViews:
    """Draw the estimator's views of each completion from its seed (N,)."""
    answer = rows.answer
    # separate from the prompt mask: a longer prompt must not change the masks
    generators = [torch.Generator().manual_seed(seed_for(seed, "views")) for seed in seeds.tolist()]
    match estimator:
        case "one_step":
            return estimators.one_step(answer)
        case "coupled":
            return estimators.coupled(answer, generators)
        case "random_mask":
            return estimators.random_mask(answer, generators, masks.num_mc_samples)
        case "elbo":
            return estimators.elbo(
                answer,
                generators,
                masks.num_mc_samples,
                times=masks.t_sampling,
                complement=masks.complement,
                block_length=block_length if masks.blockwise else None,
            )
        case "trace" if rows.unmask_step is not None:
            return estimators.trace(answer, rows.unmask_step, masks.num_mc_samples)
    raise ValueError(f"estimator={estimator!r}: unknown, or without the sampler's trace")


def view_log_probs(
    model: nn.Module,
    rows: RolloutBatch,
    views: MaskedViews,
    seeds: Tensor,
    *,
    prompt_probability: float,
    mask_id: int,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token per view, and entropy of its prediction: (N, D, C).

    seeds: (N,) long, of the prompt masks. Equal inputs run once: with a shared seed, one fully
    masked row serves the G completions of a group."""
    count, draws, _ = views.masked.shape
    width, keep = rows.prompt_ids.shape[1], rows.completion_ids.shape[1]
    seeds = seeds.to(rows.prompt_ids.device)
    canvas = rows.canvas[:, None].where(~views.masked, mask_id)  # (N, D, T)
    # the seed comes first: it orders the batch and identifies the prompt mask
    seeded = torch.cat([seeds[:, None], rows.prompt_ids], dim=1)
    keys = torch.cat([seeded[:, None].expand(-1, draws, -1), canvas], dim=2).flatten(0, 1)
    first, kind = distinct_rows(keys)
    row = first // draws
    prompt, prompt_mask = rows.prompt_ids[row], rows.prompt_mask[row]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds[row].tolist()]
    probability = torch.full_like(prompt, prompt_probability, dtype=torch.float32)
    prompt, _ = mask_tokens(prompt, probability, prompt_mask.bool(), mask_id, generators)
    completion = canvas.flatten(0, 1)[first]
    tokens = rows.completion_ids.repeat_interleave(draws, 0)

    def log_p_and_entropy(logits: Tensor, begin: int) -> Tensor:
        part = tokens[:, begin : begin + logits.shape[1]]
        return torch.stack(token_log_probs(logits, part, kind), dim=2)

    reduced = reduced_logits(
        model,
        torch.cat([prompt, completion], dim=1),
        torch.cat([prompt_mask, torch.ones_like(completion)], dim=1),
        torch.arange(width, width + keep, device=prompt.device),
        log_p_and_entropy,
    )  # (N * D, C, 2)
    log_p, entropy = reduced.view(count, draws, keep, 2).unbind(-1)
    return log_p, entropy.detach()


def gather_ragged(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Concatenate values (M,) of all processes, M differing; collective."""
    count = accelerator.gather(torch.tensor([len(values)], device=values.device))
    padded = accelerator.pad_across_processes(values, dim=0)
    rows = accelerator.gather(padded).view(len(count), -1)
    return torch.cat([row[:n] for row, n in zip(rows, count.tolist(), strict=True)])
