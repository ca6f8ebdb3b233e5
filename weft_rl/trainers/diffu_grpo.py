"""Diffusion RL on TRL: a GRPOTrainer with diffusion sampling, rewards and losses.

N rows of a rollout on this process, B of a micro-batch, C longest completion, T generation length,
G completions per prompt, mu passes over a rollout, D views."""

import copy
from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from weft_rl.diffusion.log_probs import mask_id_of
from weft_rl.diffusion.policy_losses import aggregate
from weft_rl.diffusion.rl_methods import RL_LOSSES
from weft_rl.trainers.fsdp import prepare_reference
from weft_rl.trainers.grpo_config import DiffuGRPOConfig
from weft_rl.trainers.hub_card import HubCard
from weft_rl.trainers.reward_adapter import adapted_rewards
from weft_rl.trainers.rl_checks import check_rows
from weft_rl.trainers.rl_objectives import LossInputs, TokenLoss, token_loss
from weft_rl.trainers.rollout_log_probs import ScoredRollouts
from weft_rl.trainers.rollouts import RolloutHook
from weft_rl.trainers.setup import default_tokenizer, has_new_adapter, load, wrapped


class DiffuGRPOTrainer(HubCard, ScoredRollouts):
    """TRL's rewards and loop with our sampler, log-probability estimators and losses.

    model: a folder, Hub id, run checkpoint or adapter, or a masked language model whose config has
    mask_token_id. reward_funcs: one or more functions in TRL's form, f(completions, **columns) ->
    list of floats or None, or in ours, f(completion, **fields) -> float, sync or async; mixed lists
    work. A value that fails counts as 0, with a warning and the metric reward_failures.
    train_dataset, eval_dataset: rows with prompt (a text or a chat) and any columns, which reach
    the reward functions by name; a column `fields` of dictionaries is unpacked for functions of our
    form. processing_class: the tokenizer; None: the model's. peft_config: adds a PEFT adapter.
    ref_model: of the KL term; None: the initial model (without a new adapter, or a copy).
    on_rollout: called after each rollout with step, rows, completions and rewards. Other arguments
    are those of trl.GRPOTrainer. Raises ValueError for rows, rewards and options that do not fit.

    Masks are drawn per (rollout, prompt, pass) and shared by a prompt's G completions, or per
    completion as in d1. The expected gradient is equal, and one fully masked forward pass serves
    the group. Each optimizer step uses the whole rollout. Its loss is normalized over all
    processes, so it does not depend on micro-batches or processes, unless args.micro_batch_mean.
    evaluate() samples num_generations_eval completions per prompt, with the same seeds every time,
    and returns eval_reward and the other metrics of rollouts.

    >>> from weft_rl import DiffuGRPOConfig, DiffuGRPOTrainer, SamplerConfig
    >>> from weft_rl.config.schema import BaseConfig
    >>> from weft_rl.models.loading import fresh_model
    >>> from weft_rl.models.toy import tiny_config, tiny_tokenizer
    >>> chat = [{"role": "user", "content": "2 + 3"}]
    >>> trainer = DiffuGRPOTrainer(
    ...     fresh_model(tiny_config(BaseConfig()), seed=0),  # or a folder or Hub id
    ...     reward_funcs=lambda completion, answer: float(answer in completion),
    ...     args=DiffuGRPOConfig("out", sampler=SamplerConfig(8, 8, 4), report_to="none"),
    ...     train_dataset=[{"prompt": chat, "answer": "5"}] * 8,
    ...     eval_dataset=[{"prompt": chat, "answer": "5"}],
    ...     processing_class=tiny_tokenizer(),
    ... )
    >>> 0 <= trainer.evaluate()["eval_reward"] <= 1  # then trainer.train()
    True
    """

    args: DiffuGRPOConfig
    model: nn.Module
    processing_class: PreTrainedTokenizerBase
    card_arguments = (
        *("num_generations", "num_iterations", "per_device_train_batch_size"),
        *("gradient_accumulation_steps", "learning_rate", "beta", "epsilon", "temperature"),
        "seed",
    )
    card_evaluation = "reward: mean over the completions of held-out prompts."

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
        if isinstance(train_dataset, list):
            train_dataset = Dataset.from_list(train_dataset)
        if isinstance(eval_dataset, list):
            eval_dataset = Dataset.from_list(eval_dataset)
        check_rows(train_dataset, args, tokenizer, rewards, network.config)
        # a new adapter changes nothing yet: without it, the model is the initial one
        is_new = peft_config is not None or has_new_adapter(network)
        if args.beta and ref_model is None and not is_new:
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
        # of the current rollout: record ids, rows, seed key, sampler outputs besides completions
        self.rollout_ids, self.rows, self.rollout_key = list[str](), list[dict[str, Any]](), ()
        self.sampler_tensors: dict[str, Tensor] = {}
        self._evaluated = 0  # batches of the current evaluation
        self._sums: dict[str, Tensor] = {}

    @property
    def method_label(self) -> str:
        """Loss and estimator."""
        return f"RL ({self.args.loss_type}, {self.args.estimator})"

    def _prepare_inputs(  # ty: ignore[incompatible-method-override] - TRL's own takes raw rows as well
        self, generation_batch: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the current slice of the rollout, with rows in order; a new rollout in evaluation.

        TRL would shuffle the rows from the global random state and split the groups."""
        if self._step % (self.slices * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = self.micro_batches(self.make_rollout(generation_batch))
        return self._buffered_inputs[self._step % self.slices]

    @property
    def method(self) -> dict[str, Any]:
        """What a resumed run should have as before."""
        names = ("estimator", "loss_type", "beta", "num_iterations", "num_generations")
        return super().method | {name: getattr(self.args, name) for name in names}

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
            return rollout | self.policy_tensors(rollout)

    def compute_loss(  # ty: ignore[incompatible-method-override] - outputs are never requested
        self,
        model: PreTrainedModel,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Share of one slice in the step's loss, scaled for gradient accumulation."""
        k = (self._step // self.slices) % self.num_iterations
        loss = self.pass_loss(model, inputs, k)
        if (self._step + 1) % self.slices == 0:
            self.record_step()
        return loss

    def pass_loss(self, model: nn.Module, inputs: dict[str, Any], k: int) -> Tensor:
        """Share of one slice in the loss of pass k over the rollout."""
        options = self.options
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

    def record_step(self) -> None:
        """Means of the step's metrics over all processes."""
        for name, sums in self._sums.items():
            total, count = self.accelerator.reduce(sums, reduction="sum")
            self.metrics[name].append((total / count.clamp(min=1)).item())
        self._sums.clear()
