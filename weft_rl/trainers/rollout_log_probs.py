"""Log-probabilities of a rollout under the sampling policy and the reference model.

N rows of a rollout on this process, B of a micro-batch, C longest completion, mu passes over a
rollout, D views."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import use_adapter

from weft_rl.diffusion.logprob_estimators import MaskedViews, token_estimate
from weft_rl.diffusion.rl_methods import RL_LOSSES
from weft_rl.diffusion.token_selection import entropy_mask, kl_cov_mask
from weft_rl.trainers.masked_log_probs import (
    RolloutBatch,
    draw_views,
    gather_ragged,
    view_log_probs,
)
from weft_rl.trainers.rollouts import DenoisedRollouts


class ScoredRollouts(DenoisedRollouts):
    """Rollouts with the log-probabilities that their losses need."""

    ref_model: nn.Module | None

    def policy_tensors(self, rollout: dict[str, Any]) -> dict[str, Tensor]:
        """Tensors that depend on the sampling policy and the reference model.

        old_log_probs, ref_log_probs, entropy_mask, kl_cov_mask (N, mu, C) if the options need them;
        loss_tokens (mu,) over all processes."""
        options, tensors = self.options, {}
        selects = options.loss.top_entropy_share < 1 or options.loss.kl_cov_share > 0
        # the first pass starts from the sampling policy: its ratio is 1
        first = 0 if selects else 1
        if selects or (RL_LOSSES[options.loss_type].has_ratio and self.num_iterations > 1):
            old, entropy = self._all_log_probs(self.model, rollout, first)
            tensors["old_log_probs"] = old
        if options.kl_coef and self.ref_model is not None:
            tensors["ref_log_probs"], _ = self._all_log_probs(self.ref_model, rollout, 0)
        elif options.kl_coef:
            with use_adapter(self.accelerator.unwrap_model(self.model), None):
                tensors["ref_log_probs"], _ = self._all_log_probs(self.model, rollout, 0)
        masks = [self.views(rollout, k).loss_mask for k in range(self.num_iterations)]
        tokens = torch.stack([mask.sum() for mask in masks]).float()
        tensors["loss_tokens"] = self.accelerator.reduce(tokens, reduction="sum")
        if selects:
            masks = [mask[:, : old.shape[-1]] for mask in masks]
            tensors |= self._selected(old, entropy, masks, rollout["advantages"])
        return tensors

    def _selected(
        self, log_p: Tensor, entropy: Tensor, masks: list[Tensor], advantages: Tensor
    ) -> dict[str, Tensor]:
        options, selected = self.options.loss, {}
        gather = partial(gather_ragged, self.accelerator)
        if (share := options.top_entropy_share) < 1:
            selected["entropy_mask"] = [
                entropy_mask(entropy[:, k], mask, share, gather) for k, mask in enumerate(masks)
            ]
        if (share := options.kl_cov_share) > 0:
            selected["kl_cov_mask"] = [
                kl_cov_mask(log_p[:, k], advantages, mask, share, gather)
                for k, mask in enumerate(masks)
            ]
        return {name: torch.stack(each, dim=1) for name, each in selected.items()}

    def _all_log_probs(
        self, model: Any, rollout: dict[str, Any], first: int
    ) -> tuple[Tensor, Tensor]:
        """Estimates and entropies of all passes, 0 before pass `first`: (N, mu, C)."""
        passes = []
        for k in range(self.num_iterations):
            parts = []
            for part in self.micro_batches(rollout):
                if k < first:
                    parts.append([torch.zeros_like(part["completion_ids"]).float()] * 2)
                else:
                    log_p, entropy, views = self.log_probs(model, part, k)
                    parts.append([token_estimate(log_p, views.weight), entropy])
            passes.append([torch.cat(each) for each in zip(*parts, strict=True)])
        log_probs, entropies = (torch.stack(each, dim=1) for each in zip(*passes, strict=True))
        return log_probs, entropies

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Disable TRL's log-probabilities; `policy_tensors` computes them per pass."""
        return None, None, None

    def views(self, inputs: dict[str, Any], k: int) -> MaskedViews:
        """Masked views of pass k."""
        rows, options = RolloutBatch.of(inputs, self.sampler.gen_length), self.options
        seeds, length = inputs["mask_seeds"][:, k], self.sampler.block_length
        return draw_views(options.estimator, rows, seeds, options.masks, length)

    def log_probs(
        self, model: Any, inputs: dict[str, Any], k: int
    ) -> tuple[Tensor, Tensor, MaskedViews]:
        """Log-probs (B, D, C), mean entropy over the estimating views (B, C), views."""
        views = self.views(inputs, k)
        log_p, entropy = view_log_probs(
            model,
            RolloutBatch.of(inputs, self.sampler.gen_length),
            views,
            inputs["mask_seeds"][:, k],
            prompt_probability=self.options.masks.prompt_probability,
            mask_id=self.mask_id,
        )
        views = views.first(log_p.shape[-1])
        estimated = views.weight > 0
        mean = (entropy * estimated).sum(1) / estimated.sum(1).clamp(min=1)
        return log_p, mean, views
