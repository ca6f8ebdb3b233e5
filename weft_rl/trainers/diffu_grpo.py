"""Diffusion RL on TRL: a GRPOTrainer that samples, scores and learns by masked diffusion.

N rows of a rollout on this process, B of a micro-batch, P prompt, C longest completion, T
generation length, G completions per prompt, mu passes over a rollout."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import use_adapter

from weft_rl.config.rl import RLConfig
from weft_rl.diffusion.advantages import equal_groups, group_advantages, wd1_weights
from weft_rl.diffusion.logprob_estimators import MaskedViews, token_estimate
from weft_rl.diffusion.policy_losses import aggregate
from weft_rl.errors import UserError
from weft_rl.sampler import SamplerConfig
from weft_rl.seeding import seed_for
from weft_rl.trainers.infra.atomic_checkpoints import AtomicCheckpoints
from weft_rl.trainers.infra.fsdp import spread
from weft_rl.trainers.infra.resumable_rollouts import ResumableRollouts
from weft_rl.trainers.masked_log_probs import RolloutBatch, draw_views, view_log_probs
from weft_rl.trainers.rl_objectives import (
    WITH_RATIO,
    LossInputs,
    TokenLoss,
    normalizer_of,
    token_loss,
)
from weft_rl.trainers.rollouts import DenoisedRollouts
from weft_rl.trainers.token_choice import choose_tokens

# Called after each rollout with the step, its rows, completions and rewards.
RolloutHook = Callable[[int, list[dict[str, Any]], list[Any], list[float]], None]
# Tensors of a rollout that belong to the whole of it, and not to its rows.
_WHOLE = ("num_items_in_batch", "scored_tokens")


class DiffuGRPOTrainer(DenoisedRollouts, ResumableRollouts, AtomicCheckpoints, GRPOTrainer):
    """TRL's rollouts, rewards and loop around our estimators and objectives.

    A completion's log-probability comes from masked views (`estimator`), its loss from `objective`.
    Masks are drawn per (rollout, prompt, pass) and shared by the prompt's G completions, or per
    completion as d1 does: the expected gradient is the same, and with everything hidden one forward
    serves the group. Each optimizer step takes in the whole rollout, and its loss is divided by
    counts over all processes, so that neither micro-batches nor processes change it; but for bnpo
    with a micro-batch size, which is d1's mean over micro-batches of each one's tokens."""

    args: GRPOConfig
    model: nn.Module
    processing_class: PreTrainedTokenizerBase

    def __init__(
        self,
        *args: Any,
        sampler: SamplerConfig,
        seed: int,
        options: RLConfig,
        ref_model: PreTrainedModel | None,
        on_rollout: RolloutHook | None = None,
        **kwargs: Any,
    ) -> None:
        # TRL's own weight stays 0: it would reload the reference from `_name_or_path`, which is the
        # wrong model after a merge
        super().__init__(*args, **kwargs)
        self.sampler, self.seed, self.options = sampler, seed, options
        # optional in the type, but TRL's config has filled them in by now
        self.slices = int(self.args.steps_per_generation or 0)
        self.rollout_rows = int(self.args.generation_batch_size or 0)
        self.group = int(self.num_generations or 0)
        self.on_rollout, self.ref_model = on_rollout, None
        if options.kl_coef and ref_model is not None:
            self.ref_model = spread(ref_model.eval(), self.accelerator)
        self._check_data()
        self._sums: dict[str, Tensor] = {}

    def _check_data(self) -> None:
        """TRL trains no step, and says nothing, when there are fewer prompts than a rollout has."""
        dataset: Any = self.train_dataset
        for column in ("prompt", "fields"):
            if column not in dataset.column_names:
                raise UserError(f"training records: have no column {column}; rewards need it")
        needed = self.rollout_rows // self.group
        if len(dataset) < needed:
            raise UserError(
                f"training records: there are {len(dataset)}, a rollout has {needed} prompts; "
                "lower rl.num_prompts"
            )

    @property
    def mask_id(self) -> int:
        """The token that hides another."""
        return self.accelerator.unwrap_model(self.model).config.mask_token_id

    # --- a rollout

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL passes N raw rows and wants the rollout's tensors; we add what the loss needs."""
        first = self.accelerator.process_index * len(inputs)
        # counts optimizer steps: free of micro-batches, ranks, and what a resumed run has not seen
        self._rollout, self._rows = ("train", self._step // self.slices), inputs
        self._ids = [str(row.get("id", "")) for row in inputs]
        self._extra = {}
        by_row = not self.options.masks.share_group_masks
        owners = [
            first + row if by_row else (first + row) // self.group for row in range(len(inputs))
        ]
        seeds = [
            [
                seed_for(self.seed, "prompt mask", *self._rollout, owner, k)
                for k in range(self.num_iterations)
            ]
            for owner in owners
        ]
        scored = super()._generate_and_score_completions(inputs) | self._extra
        scored["mask_seeds"] = torch.tensor(seeds, device=self.accelerator.device)  # (N, mu)
        self._log_rollout(inputs)
        scored["advantages"] = self._advantages(scored["advantages"])
        with torch.no_grad():
            scored |= self._before_update(scored)
        return scored

    def _log_rollout(self, inputs: list[dict[str, Any]]) -> None:
        # TRL keeps the newest rollout of all ranks here, this rank's rows first
        scores: Any = self._logs["rewards"]
        weights = self.reward_weights.tolist()
        rewards = [
            sum(weight * score for weight, score in zip(weights, row, strict=True))
            for row in zip(*scores.values(), strict=True)
        ]
        dead = equal_groups(torch.tensor(rewards[-self.rollout_rows :]), self.group)
        self._metrics["train"]["zero_std_groups"].append(int(dead.sum()))
        if self.on_rollout is not None and self.accelerator.is_main_process:
            self.on_rollout(self.state.global_step, inputs, [*self._logs["completion"]], rewards)

    def _advantages(self, centred: Tensor) -> Tensor:
        """From rewards less their groups' means, TRL's, to the objective's: (N,)."""
        options = self.options
        if options.loss.baseline == "mean" and options.loss_type != "wd1":
            return centred
        every = self.accelerator.gather(centred)  # a group may lie on several processes
        made = group_advantages(every, self.group, options.loss.baseline)
        if options.loss_type == "wd1":
            made = wd1_weights(made, self.group, options.loss.wd1_temperature)
        first = self.accelerator.process_index * len(centred)
        return made[first : first + len(centred)]

    def _before_update(self, scored: dict[str, Any]) -> dict[str, Tensor]:
        """What the passes over the rollout need from today's policy and from the reference.

        old_log_probs, ref_log_probs (N, mu, C) where an objective has them; scored_tokens (mu,),
        over all processes; chosen, held (N, mu, C) where tokens are picked."""
        options, made = self.options, {}
        picks = options.loss.top_entropy_share < 1 or options.loss.kl_cov_share > 0
        # the first pass begins with this very policy, whose ratio is 1: nothing to compute
        skipped = 0 if picks else 1
        if picks or (options.loss_type in WITH_RATIO and self.num_iterations > 1):
            old, entropy = self._passes(self.model, scored, skipped)
            made["old_log_probs"] = old
        if options.kl_coef and self.ref_model is not None:
            made["ref_log_probs"], _ = self._passes(self.ref_model, scored, 0)
        elif options.kl_coef:
            with use_adapter(self.accelerator.unwrap_model(self.model), None):
                made["ref_log_probs"], _ = self._passes(self.model, scored, 0)
        every = [self._views(scored, k).scored for k in range(self.num_iterations)]
        tokens = torch.stack([each.sum() for each in every]).float()
        made["scored_tokens"] = self.accelerator.reduce(tokens, reduction="sum")
        if picks:
            seen = torch.stack(every, dim=1)[..., : old.shape[-1]]
            a = scored["advantages"]
            made |= choose_tokens(self.accelerator, old, entropy, seen, a, options.loss)
        return made

    def _passes(self, model: Any, scored: dict[str, Any], skipped: int) -> tuple[Tensor, Tensor]:
        """Estimates and entropies of each pass, 0 for the first `skipped` ones: (N, mu, C)."""
        size = self.args.per_device_train_batch_size
        log_probs, entropies = [], []
        for k in range(self.num_iterations):
            parts = [
                self._estimate(model, self._slice(scored, i, size), k)
                if k >= skipped
                else [torch.zeros_like(scored["completion_ids"][i : i + size]).float()] * 2
                for i in range(0, len(scored["completion_ids"]), size)
            ]
            log_probs.append(torch.cat([part[0] for part in parts]))
            entropies.append(torch.cat([part[1] for part in parts]))
        return torch.stack(log_probs, dim=1), torch.stack(entropies, dim=1)

    def _estimate(self, model: Any, inputs: dict[str, Any], k: int) -> tuple[Tensor, Tensor]:
        log_p, entropy, views = self._look(model, inputs, k)
        return token_estimate(log_p, views.weight), entropy

    @staticmethod
    def _slice(scored: dict[str, Any], begin: int, size: int) -> dict[str, Any]:
        return {
            name: value[begin : begin + size] if name not in _WHOLE else value
            for name, value in scored.items()
        }

    def _prepare_inputs(  # ty: ignore[incompatible-method-override] - TRL's own takes raw rows as well
        self, generation_batch: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """TRL passes raw rows and wants one slice; ours leaves the rows in order.

        Each optimizer step takes in the whole rollout, so shuffling rows over its slices would
        change no gradient, draw from the global random state and scatter the groups."""
        if self._step % (self.slices * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            size = self.args.per_device_train_batch_size
            self._buffered_inputs = [
                self._slice(scored, i * size, size) for i in range(self.slices)
            ]
        return self._buffered_inputs[self._step % self.slices]

    # --- the loss

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[None, None, None]:
        """TRL asks for the old policy's log-probs here: `_before_update` has them, by pass."""
        return None, None, None

    def _views(self, inputs: dict[str, Any], k: int) -> Any:
        rows = RolloutBatch.of(inputs, self.sampler.gen_length)
        seeds = inputs["mask_seeds"][:, k]
        options, length = self.options, self.sampler.block_length
        return draw_views(options.estimator, rows, seeds, options.masks, length)

    def _look(
        self, model: Any, inputs: dict[str, Any], k: int
    ) -> tuple[Tensor, Tensor, MaskedViews]:
        """Log-probs (B, D, C), mean entropy over the views that hide a token (B, C), the views."""
        views = self._views(inputs, k)
        rows = RolloutBatch.of(inputs, self.sampler.gen_length)
        log_p, entropy = view_log_probs(
            model,
            rows,
            views,
            inputs["mask_seeds"][:, k],
            prompt_probability=self.options.masks.prompt_probability,
            mask_id=self.mask_id,
        )
        views = views.first(log_p.shape[-1])
        own = views.weight > 0
        mean = (entropy * own).sum(1) / own.sum(1).clamp(min=1)
        return log_p, mean, views

    def _compute_loss(self, model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
        """TRL passes one slice and wants its part of the loss, divided for accumulation."""
        options, k = self.options, (self._step // self.slices) % self.num_iterations
        log_p, entropy, views = self._look(model, inputs, k)

        def of_pass(name: str) -> Tensor | None:
            return inputs[name][:, k] if name in inputs else None

        evidence = LossInputs(
            inputs["advantages"],
            of_pass("old_log_probs") if k else None,
            of_pass("ref_log_probs"),
            of_pass("chosen"),
            of_pass("held"),
        )
        found = token_loss(options.loss_type, log_p, views, evidence, options.loss, options.kl_coef)
        processes = self.accelerator.num_processes
        tokens = inputs["scored_tokens"][k]
        if options.loss_type == "bnpo" and options.optimizer.micro_batch_size is not None:
            # d1's: each micro-batch weighs the same, whatever its number of tokens
            tokens = found.scored.sum() * self.slices * processes
        loss = aggregate(
            found.loss,
            found.scored,
            normalizer_of(options.loss_type),
            tokens=tokens,
            rows=self.rollout_rows,
            gen_length=self.sampler.gen_length,
            group=self.group,
        )
        self._measure(found, entropy, views.seen)
        size = self.args.per_device_train_batch_size
        first = self._step % self.slices * size
        # processes' gradients are averaged, their shares of the loss are to be summed
        return self.checked(loss, self._ids[first : first + size]) * processes

    def _measure(self, found: TokenLoss, entropy: Tensor, seen: Tensor) -> None:
        """Means over a step's scored tokens, or completions of what is one value for each."""
        values = {"kl": found.kl, "entropy": entropy, "clip_ratio/region_mean": found.clip_ratio}
        for name, value in values.items():
            if value is not None:
                counted = seen if name == "entropy" else found.scored
                counted = counted.any(-1, keepdim=True) if value.shape[-1] == 1 else counted
                sums = torch.stack([(value.detach() * counted).float().sum(), counted.sum()])
                self._sums[name] = self._sums[name] + sums if name in self._sums else sums
        if (self._step + 1) % self.slices == 0:
            for name, sums in self._sums.items():
                total, count = self.accelerator.reduce(sums, reduction="sum")
                self._metrics["train"][name].append((total / count.clamp(min=1)).item())
            self._sums.clear()
