"""From a rollout's rows to the log-probabilities of their masked views.

N completions, D views of each, P prompt tokens, T canvas tokens, C of the longest completion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weft_rl.config.rl import MasksConfig
from weft_rl.diffusion import logprob_estimators as estimators
from weft_rl.diffusion.log_probs import distinct_rows, token_log_probs
from weft_rl.diffusion.logprob_estimators import MaskedViews
from weft_rl.diffusion.noise import mask_tokens
from weft_rl.seeding import seed_for


@dataclass(frozen=True)
class RolloutBatch:
    """Prompts and completions as the estimators take them."""

    prompt_ids: Tensor  # (N, P) long, padded on the left
    prompt_mask: Tensor  # (N, P), 0 on padding
    completion_ids: Tensor  # (N, C) long
    answer: Tensor  # (N, T) bool, a completion's tokens up to its end
    canvas: Tensor  # (N, T) long, the completion and, after its end, what the sampler left there
    order: Tensor | None  # (N, T) long, the sampler's step of each token, if it was kept

    @classmethod
    def of(cls, inputs: Mapping[str, Any], gen_length: int) -> "RolloutBatch":
        """From TRL's dictionary of a slice, with `canvas` and `order` where a trace was kept."""
        ids, shown = inputs["completion_ids"], inputs["completion_mask"].bool()
        after = (0, gen_length - ids.shape[1])
        return cls(
            inputs["prompt_ids"],
            inputs["prompt_mask"],
            ids,
            nn.functional.pad(shown, after),
            inputs.get("canvas", nn.functional.pad(ids, after)),
            inputs.get("order"),
        )


def draw_views(
    estimator: str, rows: RolloutBatch, seeds: Tensor, masks: MasksConfig, block_length: int
) -> MaskedViews:
    """The estimator's views of each completion, from its seed (N,) alone."""
    answer = rows.answer
    if estimator == "one_step":
        return estimators.one_step(answer)
    if estimator == "trace":
        if rows.order is None:
            raise ValueError("the trace estimator needs the sampler's order")
        return estimators.trace(answer, rows.order, masks.num_mc_samples)
    # not the prompt mask's generator: a longer prompt must not move the completion's masks
    generators = [torch.Generator().manual_seed(seed_for(own, "views")) for own in seeds.tolist()]
    if estimator == "coupled":
        return estimators.coupled(answer, generators)
    if estimator == "random_mask":
        return estimators.random_mask(answer, generators, masks.num_mc_samples)
    return estimators.elbo(
        answer,
        generators,
        masks.num_mc_samples,
        times=masks.t_sampling,
        complement=masks.complement,
        block_length=block_length if masks.blockwise else None,
    )


def view_log_probs(
    model: nn.Module,
    rows: RolloutBatch,
    views: MaskedViews,
    seeds: Tensor,
    *,
    prompt_probability: float,
    mask_id: int,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token in each view, and the entropy of its prediction: (N, D, C).

    seeds (N,) long: of the prompt's mask. Equal inputs go through the model once, whichever rows
    they belong to: with everything hidden and a group's seed in common, one row serves G."""
    count, draws, _ = views.masked.shape
    width, keep = rows.prompt_ids.shape[1], rows.completion_ids.shape[1]
    seeds = seeds.to(rows.prompt_ids.device)
    hidden = rows.canvas[:, None].where(~views.masked, mask_id)  # (N, D, T)
    # the seed comes first: it orders the batch, and stands for the prompt's mask
    beside = torch.cat([seeds[:, None], rows.prompt_ids], dim=1)
    keys = torch.cat([beside[:, None].expand(-1, draws, -1), hidden], dim=2).flatten(0, 1)
    first, places = distinct_rows(keys)
    own = first // draws
    prompt, shown = rows.prompt_ids[own], rows.prompt_mask[own]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds[own].tolist()]
    probability = torch.full_like(prompt, prompt_probability, dtype=torch.float32)
    prompt, _ = mask_tokens(prompt, probability, shown.bool(), mask_id, generators)
    completion = hidden.flatten(0, 1)[first]
    tokens = rows.completion_ids.repeat_interleave(draws, 0)

    def of_part(logits: Tensor, begin: int) -> Tensor:
        part = tokens[:, begin : begin + logits.shape[1]]
        return torch.stack(token_log_probs(logits, part, places), dim=2)

    found = model(
        input_ids=torch.cat([prompt, completion], dim=1),
        attention_mask=torch.cat([shown, torch.ones_like(completion)], dim=1),
        logits_to_keep=torch.arange(width, width + keep, device=prompt.device),
        logits_fn=of_part,
    ).logits  # (N * D, C, 2)
    log_p, entropy = found.view(count, draws, keep, 2).unbind(-1)
    return log_p, entropy.detach()
