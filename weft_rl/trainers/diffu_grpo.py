"""diffu-GRPO on TRL: a GRPOTrainer that samples and scores by masked diffusion.

N rows of a rollout, B of a micro-batch, P prompt, C longest completion, T generation length,
G completions per prompt, mu passes over a rollout."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from weft_rl.diffusion.noise import mask_tokens
from weft_rl.diffusion.policy import distinct_rows, token_log_probs
from weft_rl.sampler import SamplerConfig, generate
from weft_rl.seeding import seed_for
from weft_rl.trainers.checkpoints import AtomicCheckpoints

# Called after each rollout with the step, its rows, completions and rewards.
RolloutHook = Callable[[int, list[dict[str, Any]], list[Any], list[float]], None]


class EpochSampler(RepeatSampler):
    """TRL's prompt order, seeded anew for each epoch, so that a resumed run finds its place."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(seed_for(int(self.seed or 0), "order", self.epoch))
        return super().__iter__()


class DiffuGRPOTrainer(AtomicCheckpoints, GRPOTrainer):
    """The seams where TRL's GRPO assumes an autoregressive model, and nothing else.

    The policy's log-probability of a completion is d1's one-step estimate: all T completion tokens
    masked, prompt tokens masked with a small probability, one forward. The prompt's mask is drawn
    per (rollout, prompt, pass over the rollout) and shared by the prompt's G completions, where d1
    draws one per completion: the expected gradient is the same, one forward serves the group."""

    args: GRPOConfig
    model: nn.Module
    processing_class: PreTrainedTokenizerBase

    def __init__(
        self,
        *args: Any,
        sampler: SamplerConfig,
        seed: int,
        prompt_mask_probability: float,
        kl_coef: float,
        ref_model: PreTrainedModel | None,
        on_rollout: RolloutHook | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sampler, self.seed = sampler, seed
        # optional in the type, but TRL's config has filled them in by now
        self.slices = int(self.args.steps_per_generation or 0)
        self.rollout_rows = int(self.args.generation_batch_size or 0)
        self.group = int(self.num_generations or 0)
        self.prompt_mask_probability, self.on_rollout = prompt_mask_probability, on_rollout
        # set after TRL's own set-up, which would reload the reference from `_name_or_path`: the
        # wrong weights for a model that was merged or never saved
        self.beta = kl_coef
        if kl_coef and ref_model is not None:
            self.ref_model = self.accelerator.prepare_model(ref_model.eval(), evaluation_mode=True)
        self._rollout: tuple[int | str, ...] = ()
        self._mask_seeds, self._in_loss = torch.empty(0), False

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: Any, **__: Any
    ) -> tuple[list[list[int]], None]:
        """TRL passes N prompts, each repeated G times; it wants completions without pads."""
        padded = self.processing_class.pad(
            {"input_ids": prompt_ids}, padding_side="left", return_tensors="pt"
        )
        first = self.accelerator.process_index * len(prompt_ids)
        seeds = [
            seed_for(self.seed, "rollout", *self._rollout, first + row)
            for row in range(len(prompt_ids))
        ]
        padded = padded.to(self.accelerator.device)
        model = self.accelerator.unwrap_model(self.model)
        out = generate(model, padded["input_ids"], self.sampler, padded["attention_mask"], seeds)
        lengths = (out.lengths + 1).clamp(max=self.sampler.gen_length)  # with the end token
        return [
            row[:length]
            for row, length in zip(out.completions.tolist(), lengths.tolist(), strict=True)
        ], None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL passes N raw rows and wants the rollout's tensors; we add the prompt-mask seeds."""
        training, rows = self.model.training, len(inputs)
        passes = self.num_iterations if training else 1
        group = self.num_generations if training else self.num_generations_eval
        first = self.accelerator.process_index * rows
        # counts optimizer steps: free of micro-batches, ranks, and what a resumed run has not seen
        step = self._step // self.slices
        self._rollout = ("train", step) if training else ("eval", self.state.global_step)
        self._mask_seeds = torch.tensor(
            [
                [
                    seed_for(self.seed, "prompt mask", *self._rollout, (first + row) // group, k)
                    for k in range(passes)
                ]
                for row in range(rows)
            ]
        )  # (N, mu)
        scored = super()._generate_and_score_completions(inputs)
        if training and self.on_rollout is not None and self.accelerator.is_main_process:
            # TRL keeps the newest rollout of all ranks here, this rank's rows first
            scores: Any = self._logs["rewards"]
            rewards = [sum(row) for row in zip(*scores.values(), strict=True)]
            self.on_rollout(self.state.global_step, inputs, [*self._logs["completion"]], rewards)
        return scored | {"mask_seeds": self._mask_seeds}

    def _prepare_inputs(  # ty: ignore[incompatible-method-override] - TRL's own takes raw rows as well
        self, generation_batch: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """TRL passes raw rows and wants one slice; ours leaves the rows in order.

        Each optimizer step takes in the whole rollout, so shuffling rows over its slices would
        change no gradient, draw from the global random state and scatter the groups."""
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        if self._step % (self.slices * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            size = self.args.per_device_train_batch_size
            self._buffered_inputs = [
                {
                    name: value[i * size : (i + 1) * size]
                    if isinstance(value, Tensor) and value.dim() > 0
                    else value
                    for name, value in scored.items()
                }
                for i in range(self.slices)
            ]
        return self._buffered_inputs[self._step % self.slices]

    def _get_per_token_logps_and_entropies(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor, None]:
        """TRL passes input_ids (N, P+C) and wants log-probs, entropies: (N, C), or (N, mu, C) when
        a rollout is scored, where every pass has its own prompt mask."""
        columns = [
            self._one_pass(model, input_ids, attention_mask, logits_to_keep, self._mask_seeds[:, k])
            for k in range(self._mask_seeds.shape[1])
        ]
        log_probs, entropies = (torch.stack(part, dim=1) for part in zip(*columns, strict=True))
        if self._in_loss:
            return log_probs[:, 0], entropies[:, 0], None
        return log_probs, entropies, None

    def _one_pass(
        self, model: PreTrainedModel, ids: Tensor, visible: Tensor, keep: int, seeds: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies (N, C) of the completions under one prompt mask each."""
        width = ids.shape[1] - keep
        prompt, tokens = ids[:, :width], ids[:, width:]
        keys = torch.cat([seeds[:, None].to(ids.device), prompt], dim=1)
        first, places = distinct_rows(keys)
        prompt, shown = prompt[first], visible[first, :width]
        mask_id = self.accelerator.unwrap_model(model).config.mask_token_id
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[first].tolist()]
        probability = torch.full_like(prompt, self.prompt_mask_probability, dtype=torch.float32)
        prompt, _ = mask_tokens(prompt, probability, shown.bool(), mask_id, generators)
        # T masks, not C: their number is part of the input, and C is the batch's longest completion
        masks = prompt.new_full((len(prompt), self.sampler.gen_length), mask_id)
        logits = model(
            input_ids=torch.cat([prompt, masks], dim=1),
            attention_mask=torch.cat([shown, torch.ones_like(masks)], dim=1),
            logit_positions=torch.arange(width, width + keep, device=ids.device),
        ).logits
        return token_log_probs(logits, tokens, places)

    def _compute_loss(self, model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
        """TRL passes one slice and wants its loss; we pick the pass that this step belongs to."""
        step = self._step // self.slices
        k = step % self.num_iterations if self.model.training else 0
        picked = dict(inputs)  # a copy: the slice stays in the buffer for the other passes
        for name in ("old_per_token_logps", "ref_per_token_logps"):
            if picked.get(name) is not None:
                picked[name] = picked[name][:, k]
        self._mask_seeds, self._in_loss = picked["mask_seeds"][:, k : k + 1], True
        try:
            return super()._compute_loss(model, picked)
        finally:
            self._in_loss = False

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        """TRL's sampler, its order seeded by epoch."""
        source: Any = self.train_dataset if dataset is None else dataset
        self._order = EpochSampler(
            data_source=source,
            mini_repeat_count=self.group,
            batch_size=self.rollout_rows // self.group,
            repeat_count=self.num_iterations * self.slices,
            shuffle=bool(self.shuffle_dataset),
            seed=self.args.seed,
        )
        return self._order

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers runs one epoch here; the order must be set before it is iterated."""
        self._order.epoch = int(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Transformers saves random states here, on every rank: the rollout in use goes along."""
        super()._save_rng_state(output_dir)
        rank = self.accelerator.process_index
        state = {"step": self._step, "buffer": self._buffered_inputs}
        torch.save(state, f"{output_dir}/rollout_{rank}.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Transformers restores the optimizer here: the rollout in use is restored as well."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            rank, device = self.accelerator.process_index, self.accelerator.device
            path = f"{checkpoint}/rollout_{rank}.pt"
            state = torch.load(path, map_location=device, weights_only=True)
            self._step, self._buffered_inputs = state["step"], state["buffer"]
