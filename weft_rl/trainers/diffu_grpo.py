"""Diffusion RL on TRL: a GRPOTrainer with diffusion sampling, rewards and losses.

N rows of a rollout on this process, B of a micro-batch, C longest completion, T generation length,
G completions per prompt, mu passes over a rollout, D views."""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl.trainer.utils import RepeatSampler, use_adapter

from weft_rl.diffusion.log_probs import mask_id_of
from weft_rl.diffusion.logprob_estimators import MaskedViews, token_estimate
from weft_rl.diffusion.policy_losses import aggregate
from weft_rl.diffusion.rl_methods import RL_LOSSES
from weft_rl.diffusion.token_selection import entropy_mask, kl_cov_mask
from weft_rl.seeding import seed_for
from weft_rl.trainers.fsdp import prepare_reference
from weft_rl.trainers.grpo_config import DiffuGRPOConfig
from weft_rl.trainers.masked_log_probs import (
    RolloutBatch,
    draw_views,
    gather_ragged,
    view_log_probs,
)
from weft_rl.trainers.resume_state import SetEpoch
from weft_rl.trainers.reward_adapter import adapted_rewards, check_rows, refuse_failing
from weft_rl.trainers.rl_objectives import LossInputs, TokenLoss, token_loss
from weft_rl.trainers.rollouts import DenoisedRollouts, RolloutHook
from weft_rl.trainers.setup import default_tokenizer, load, wrapped

# Rollout tensors without a row per completion.
_WITHOUT_ROWS = ("num_items_in_batch", "loss_tokens")


class EpochSampler(RepeatSampler):
    """TRL's prompt order, seeded by `epoch` so that a resumed run continues it."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(seed_for(int(self.seed or 0), "order", self.epoch))
        return super().__iter__()


class DiffuGRPOTrainer(DenoisedRollouts):
    """TRL's rewards and loop with our sampler, log-probability estimators and losses.

    model: a folder, Hub id, run checkpoint or adapter, or a masked language model whose config has
    mask_token_id. reward_funcs: one or more functions in TRL's form, f(completions, **columns) ->
    list of floats or None, or in ours, f(completion, **fields) -> float, sync or async; mixed lists
    work. A value that fails counts as 0, with a warning and the metric reward_failures.
    train_dataset, eval_dataset: rows with prompt (a text or a chat) and any columns, which reach
    the reward functions by name; a column `fields` of dictionaries is unpacked for functions of our
    form. processing_class: the tokenizer; None: the model's. peft_config: adds a PEFT adapter.
    ref_model: of the KL term; None: the model without its adapter, or a copy of it. on_rollout:
    called after each rollout with step, rows, completions and rewards. Other arguments are those of
    trl.GRPOTrainer. Raises ValueError for rows, rewards and options that do not fit.

    Masks are drawn per (rollout, prompt, pass) and shared by a prompt's G completions, or per
    completion as in d1. The expected gradient is equal, and one fully masked forward pass serves
    the group. Each optimizer step uses the whole rollout. Its loss is normalized over all
    processes, so it does not depend on micro-batches or processes, unless args.micro_batch_mean.
    evaluate() samples num_generations_eval completions per prompt, with the same seeds every time,
    and returns eval_reward and the other metrics of rollouts."""

    args: DiffuGRPOConfig
    model: nn.Module
    processing_class: PreTrainedTokenizerBase

    def __init__(
        self,
        model: PreTrainedModel | str,
        reward_funcs: Any,
        args: DiffuGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        *,
        ref_model: PreTrainedModel | None = None,
        on_rollout: RolloutHook | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or DiffuGRPOConfig("trainer_output")
        for name in ("tools", "environment_factory", "rollout_func"):
            if kwargs.get(name):
                raise ValueError(f"{name}: a diffusion model's rollouts come from its sampler")
        tokenizer = default_tokenizer(model) if processing_class is None else processing_class
        if tokenizer is None:
            raise ValueError("processing_class: give the tokenizer; the model has no name_or_path")
        network = load(model, args, peft_config is not None)
        mask_id_of(network)
        rewards = adapted_rewards(reward_funcs)
        check_rows(train_dataset, args, tokenizer, rewards)
        copied = args.beta and ref_model is None and not isinstance(network, PeftModel)
        if copied and peft_config is None:
            ref_model = copy.deepcopy(network)
        # TRL would load the reference from `_name_or_path`, the wrong model after a merge
        kl_coef, args.beta = args.beta, 0.0
        try:
            super().__init__(
                wrapped(network, peft_config, args.seed),
                rewards,
                args,
                train_dataset,
                eval_dataset,
                tokenizer,
                callbacks=callbacks,
                **kwargs,
            )
        finally:
            args.beta = kl_coef
        self.sampler, self.options, self.on_rollout = args.rollout_sampler, args.options, on_rollout
        self.rollout_func = self.generate_rollout
        # optional in the type; TRL's config has set them
        self.slices = int(args.steps_per_generation or 0)
        self.rollout_rows = int(args.generation_batch_size or 0)
        self.ref_model = None
        if kl_coef and ref_model is not None:
            self.ref_model = prepare_reference(ref_model.eval(), self.accelerator)
        self.rollout_ids: list[str] = []  # record ids of the rollout's rows
        self._sums: dict[str, Tensor] = {}

    @property
    def mask_id(self) -> int:
        """Mask token id."""
        return mask_id_of(self.accelerator.unwrap_model(self.model))

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        source: Any = self.train_dataset if dataset is None else dataset
        sampler = EpochSampler(
            data_source=source,
            mini_repeat_count=self.group,
            batch_size=self.rollout_rows // self.group,
            repeat_count=self.num_iterations * self.slices,
            shuffle=bool(self.shuffle_dataset),
            seed=self.args.seed,
        )
        self.add_callback(SetEpoch(sampler))
        return sampler

    # --- rollout

    def _prepare_inputs(  # ty: ignore[incompatible-method-override] - TRL's own takes raw rows as well
        self, generation_batch: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the current slice of the rollout, with rows in order; a new rollout in evaluation.

        TRL would shuffle the rows from the global random state and split the groups."""
        if self._step % (self.slices * self.num_iterations) == 0 or self._buffered_inputs is None:
            rollout = self.make_rollout(generation_batch)
            size = self.args.per_device_train_batch_size
            self._buffered_inputs = [
                self._slice(rollout, i * size, size) for i in range(self.slices)
            ]
        return self._buffered_inputs[self._step % self.slices]

    def make_rollout(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the tensors of a training rollout from N dataset rows."""
        # 1. completions and rewards; counts optimizer steps: independent of micro-batches,
        # processes and resuming
        rollout = self.scored_completions(rows, "train", self._step // self.slices)
        # 2. mask seeds and advantages
        rollout["mask_seeds"] = self._mask_seeds(len(rows))
        rollout["advantages"] = self._advantages(rollout["advantages"])
        # 3. log-probabilities of the sampling policy and the reference; loss tokens
        with torch.no_grad():
            return rollout | self._before_update(rollout)

    def scored_completions(
        self, rows: list[dict[str, Any]], name: str, index: int
    ) -> dict[str, Any]:
        """Completions, rewards and centered rewards of N rows; (name, index) seeds the sampler."""
        self.rollout_key, self.rows = (name, index), rows
        self.rollout_ids = [str(row.get("id", "")) for row in rows]
        self.sampler_tensors = {}
        rollout = self._generate_and_score_completions(rows) | self.sampler_tensors
        refuse_failing(self.reward_funcs)
        self._log_rollout(rows)
        return rollout

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return eval_reward and the other metrics of rollouts of the held-out prompts."""
        self._evaluated = 0
        return super().evaluate(*args, **kwargs)

    def prediction_step(  # ty: ignore[incompatible-method-override] - rows, as TRL's trainer
        self, model: nn.Module, inputs: list[dict[str, Any]], *_: Any, **__: Any
    ) -> tuple[None, None, None]:
        """Sample and score a batch of rows; there is no loss."""
        with torch.no_grad():
            self.scored_completions(inputs, "eval", self._evaluated)
        self._evaluated += 1
        return None, None, None

    def _before_update(self, rollout: dict[str, Any]) -> dict[str, Tensor]:
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
        size, passes = self.args.per_device_train_batch_size, []
        for k in range(self.num_iterations):
            parts = []
            for i in range(0, len(rollout["completion_ids"]), size):
                part = self._slice(rollout, i, size)
                if k < first:
                    parts.append([torch.zeros_like(part["completion_ids"]).float()] * 2)
                else:
                    log_p, entropy, views = self.log_probs(model, part, k)
                    parts.append([token_estimate(log_p, views.weight), entropy])
            passes.append([torch.cat(each) for each in zip(*parts, strict=True)])
        log_probs, entropies = (torch.stack(each, dim=1) for each in zip(*passes, strict=True))
        return log_probs, entropies

    @staticmethod
    def _slice(rollout: dict[str, Any], begin: int, size: int) -> dict[str, Any]:
        return {
            name: value if name in _WITHOUT_ROWS else value[begin : begin + size]
            for name, value in rollout.items()
        }

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Disable TRL's log-probabilities; `_before_update` computes them per pass."""
        return None, None, None

    # --- loss

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

    def compute_loss(  # ty: ignore[incompatible-method-override] - outputs are never requested
        self,
        model: PreTrainedModel,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Share of one slice in the step's loss, scaled for gradient accumulation."""
        options, k = self.options, (self._step // self.slices) % self.num_iterations
        # 1. log-probabilities of the masked views
        log_p, entropy, views = self.log_probs(model, inputs, k)

        # 2. loss per token
        def of_pass(name: str) -> Tensor | None:
            return inputs[name][:, k] if name in inputs else None

        loss_inputs = LossInputs(
            inputs["advantages"],
            of_pass("old_log_probs") if k else None,
            of_pass("ref_log_probs"),
            of_pass("entropy_mask"),
            of_pass("kl_cov_mask"),
        )
        result = token_loss(
            options.loss_type, log_p, views, loss_inputs, options.loss, options.kl_coef
        )
        # 3. share of the step's loss
        processes, tokens = self.accelerator.num_processes, inputs["loss_tokens"][k]
        if options.loss_type == "bnpo" and self.args.micro_batch_mean:
            # d1: equal weight per micro-batch, whatever its number of tokens
            tokens = result.loss_mask.sum() * self.slices * processes
        loss = aggregate(
            result.loss,
            result.loss_mask,
            RL_LOSSES[options.loss_type].normalizer,
            tokens=tokens,
            rows=self.rollout_rows,
            gen_length=self.sampler.gen_length,
            group=self.group,
        )
        self._record(result, entropy, (views.weight > 0).any(1))
        # gradients are averaged over processes; loss shares are summed
        return loss * processes

    def _record(self, result: TokenLoss, entropy: Tensor, estimated: Tensor) -> None:
        metrics = {
            "kl": (result.kl, result.loss_mask),
            "entropy": (entropy, estimated),
            "clip_ratio/region_mean": (result.clipped, result.loss_mask),
        }
        for name, (value, mask) in metrics.items():
            if value is not None:
                counted = mask.any(-1, keepdim=True) if value.shape[-1] == 1 else mask
                sums = torch.stack([(value.detach() * counted).float().sum(), counted.sum()])
                self._sums[name] = self._sums[name] + sums if name in self._sums else sums
        if (self._step + 1) % self.slices == 0:
            for name, sums in self._sums.items():
                total, count = self.accelerator.reduce(sums, reduction="sum")
                self._metrics["train"][name].append((total / count.clamp(min=1)).item())
            self._sums.clear()

    def save_resume_state(self, folder: Path) -> None:
        """Add the current rollout."""
        super().save_resume_state(folder)
        state = {"step": self._step, "buffer": self._buffered_inputs, "ids": self.rollout_ids}
        torch.save(state, folder / f"rollout_{self.rank}.pt")

    def load_resume_state(self, folder: Path) -> None:
        """Restore the rollout."""
        super().load_resume_state(folder)
        # with several processes CPUs are named cpu:0, which torch.load rejects
        device = self.accelerator.device.type
        path = folder / f"rollout_{self.rank}.pt"
        state = torch.load(path, map_location=device, weights_only=True)
        self._step, self._buffered_inputs = state["step"], state["buffer"]
        self.rollout_ids = state["ids"]
