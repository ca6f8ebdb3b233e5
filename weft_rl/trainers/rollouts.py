"""Rollouts of N rows on this process, G per prompt, with T generated tokens."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from weft_rl.config.rl import RLConfig
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.diffusion.advantages import equal_groups, group_advantages, wd1_weights
from weft_rl.diffusion.log_probs import mask_id_of
from weft_rl.diffusion.logprob_estimators import NEVER
from weft_rl.sampler import SamplerConfig, generate
from weft_rl.sampler.prompts import pad_left
from weft_rl.sampler.validation import special_ids
from weft_rl.seeding import seed_for
from weft_rl.trainers.fsdp import gathered_model
from weft_rl.trainers.grpo_config import DiffuGRPOConfig
from weft_rl.trainers.resume_state import ResumeState, SetEpoch
from weft_rl.trainers.rl_checks import refuse_failing

# Called after each rollout with step, rows, completions and rewards.
RolloutHook = Callable[[int, list[dict[str, Any]], list[Any], list[float]], None]


# Rollout tensors without a row per completion.
WITHOUT_ROWS = ("num_items_in_batch", "loss_tokens")


class EpochSampler(RepeatSampler):
    """TRL's prompt order, seeded by `epoch` so that a resumed run continues it."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(seed_for(int(self.seed or 0), "order", self.epoch))
        return super().__iter__()


class DenoisedRollouts(ResumeState, GRPOTrainer):
    """GRPOTrainer with diffusion sampling; draws depend on seed, step and row, not on processes."""

    args: DiffuGRPOConfig
    model: nn.Module
    processing_class: PreTrainedTokenizerBase
    sampler: SamplerConfig
    options: RLConfig
    rollout_rows: int
    slices: int  # micro-batches of an optimizer step
    on_rollout: RolloutHook | None
    rows: list[dict[str, Any]]  # the N rows of the rollout
    rollout_key: tuple[int | str, ...]  # seeds the rollout
    sampler_tensors: dict[str, Tensor]  # sampler outputs of the loss besides the completions

    @property
    def metrics(self) -> dict[str, list[float]]:
        """Values of each metric since the last log line of training, or of evaluation."""
        return self._metrics["train" if self.model.training else "eval"]

    @property
    def group(self) -> int:
        """Completions per prompt."""
        count = self.num_generations if self.model.training else self.num_generations_eval
        return int(count or 0)

    @property
    def mask_id(self) -> int:
        """Mask token id."""
        return mask_id_of(self.accelerator.unwrap_model(self.model))

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        source: Any = self.train_dataset if dataset is None else dataset
        sampler = EpochSampler(
            data_source=source,
            mini_repeat_count=int(self.num_generations or 0),
            batch_size=self.rollout_rows // int(self.num_generations or 0),
            repeat_count=self.num_iterations * self.slices,
            shuffle=bool(self.shuffle_dataset),
            seed=self.args.seed,
        )
        self.add_callback(SetEpoch(sampler))
        return sampler

    def _generate(self, prompts: list[Any]) -> Any:
        """Decode completions as in evaluation, instead of TRL's way."""
        ids, completion_ids, mask, _, *others = super()._generate(prompts)
        return ids, completion_ids, mask, self._decoded(prompts, completion_ids), *others

    def _decoded(self, prompts: list[Any], completions: list[list[int]]) -> list[Any]:
        """Texts after text prompts, assistant messages after chats."""
        _, ends = special_ids(self.accelerator.unwrap_model(self.model))
        texts = [decode_completion(self.processing_class, ids, ends) for ids in completions]
        return [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, texts, strict=True)
        ]

    def generate_rollout(self, prompts: list[Any], _: GRPOTrainer) -> dict[str, Any]:
        """TRL's rollout_func: token ids of N prompts and of their unpadded completions."""
        encoder = TextEncoder(self.processing_class)
        prompt_ids = (
            [encoder.context(text) for text in prompts]
            if isinstance(prompts[0], str)
            else encoder.chats(prompts)
        )
        attempts = self.options.rollout.resample if self.model.training else 0
        resampled = 0
        with gathered_model(self) as model:
            completions, canvas, steps = self._sample(model, prompt_ids, range(len(prompt_ids)))
            for attempt in range(attempts):
                groups, rows = self._equal_rows(completions)
                if not groups:
                    break
                resampled += groups
                if rows:
                    ids = [prompt_ids[i] for i in rows]
                    sampled = self._sample(model, ids, rows, "attempt", attempt)
                    canvas[rows], steps[rows] = sampled[1], sampled[2]
                    for i, completion in zip(rows, sampled[0], strict=True):
                        completions[i] = completion
        if attempts:
            self.metrics["resampled_groups"].append(resampled)
        if self.options.estimator == "trace":
            self.sampler_tensors = {"canvas": canvas, "unmask_step": steps}
        return {"prompt_ids": prompt_ids, "completion_ids": completions, "logprobs": None}

    def _sample(
        self,
        model: PreTrainedModel,
        prompt_ids: list[list[int]],
        rows: Sequence[int],
        *attempt: int | str,
    ) -> tuple[list[list[int]], Tensor, Tensor]:
        ids, visible = pad_left(prompt_ids, self.processing_class, self.accelerator.device)
        first = self.accelerator.process_index * len(self.rows)
        seeds = [
            seed_for(self.args.seed, "rollout", *self.rollout_key, first + row, *attempt)
            for row in rows
        ]
        out = generate(model, ids, self.sampler, visible, seeds)
        steps = torch.full_like(out.completions, NEVER)
        for row, entries in enumerate(out.trace or []):
            for entry in entries:
                steps[row, entry["position"]] = entry["step"]
        lengths = (out.lengths + 1).clamp(max=self.sampler.gen_length)  # with the end token
        pairs = zip(out.completions.tolist(), lengths.tolist(), strict=True)
        return [row[:length] for row, length in pairs], out.completions, steps

    def _equal_rows(self, completions: list[list[int]]) -> tuple[int, list[int]]:
        """Number of equal-reward groups over all processes, and this process' rows in them."""
        prompts = [row["prompt"] for row in self.rows]
        scores = self._calculate_rewards(
            self.rows, prompts, self._decoded(prompts, completions), completions
        )
        refuse_failing(self.reward_funcs)
        self._pending_metrics.clear()  # the final scoring counts them
        weighted = (scores * self.reward_weights.to(scores.device)).nansum(1)
        equal = equal_groups(weighted, self.group)
        first = self.accelerator.process_index * len(completions)
        groups = [(first + row) // self.group for row in range(len(completions))]
        return int(equal.sum()), [row for row, group in enumerate(groups) if equal[group]]

    def _mask_seeds(self, rows: int) -> Tensor:
        """A seed per row and pass, shared within a group if configured: (N, mu) long."""
        first = self.accelerator.process_index * rows
        shared = self.group if self.options.masks.share_group_masks else 1
        seeds = [
            [
                seed_for(
                    self.args.seed, "prompt mask", *self.rollout_key, (first + row) // shared, k
                )
                for k in range(self.num_iterations)
            ]
            for row in range(rows)
        ]
        return torch.tensor(seeds, device=self.accelerator.device)

    def _log_rollout(self, rows: list[dict[str, Any]]) -> None:
        # TRL's logs hold the newest rollout of all ranks, this rank's rows first
        scores: Any = self._logs["rewards"]
        weights = self.reward_weights.tolist()
        rewards = [
            sum(weight * _number(score) for weight, score in zip(weights, row, strict=True))
            for row in zip(*scores.values(), strict=True)
        ]
        total = len(rows) * self.accelerator.num_processes
        # TRL keeps the newest rows only, which may be fewer than those of an evaluation batch
        newest = rewards[-total:]
        newest = newest[len(newest) % self.group :]
        equal = equal_groups(torch.tensor(newest), self.group)
        self.metrics["zero_std_groups"].append(int(equal.sum()))
        if self.model.training and self.on_rollout is not None and self.accelerator.is_main_process:
            self.on_rollout(self.state.global_step, rows, [*self._logs["completion"]], rewards)

    def _advantages(self, centered: Tensor) -> Tensor:
        options, is_wd1 = self.options.loss, self.options.loss_type == "wd1"
        if options.baseline == "mean" and not is_wd1:
            return centered
        gathered = self.accelerator.gather(centered)  # a group may be split over processes
        advantages = group_advantages(gathered, self.group, options.baseline)
        if is_wd1:
            advantages = wd1_weights(advantages, self.group, options.wd1_temperature)
        first = self.accelerator.process_index * len(centered)
        return advantages[first : first + len(centered)]

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

    def micro_batches(self, rollout: dict[str, Any]) -> list[dict[str, Any]]:
        """The rollout's tensors in slices of per_device_train_batch_size rows, in order."""
        size = self.args.per_device_train_batch_size
        return [
            {
                name: value if name in WITHOUT_ROWS else value[begin : begin + size]
                for name, value in rollout.items()
            }
            for begin in range(0, len(rollout["completion_ids"]), size)
        ]

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
        if not path.exists():
            warnings.warn(f"{path}: missing; the next step samples a new rollout", stacklevel=2)
            self._step = self.state.global_step * self.slices
            return
        state = torch.load(path, map_location=device, weights_only=True)
        self._step, self._buffered_inputs = state["step"], state["buffer"]
        self.rollout_ids = state["ids"]
        if self._buffered_inputs is not None and len(self._buffered_inputs) != self.slices:
            # other micro-batches of the same rollout
            self._step = self._step // len(self._buffered_inputs) * self.slices
            self._buffered_inputs = self.micro_batches(joined(self._buffered_inputs))


def joined(micro_batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put the micro-batches of a rollout together again."""
    return {
        name: value if name in WITHOUT_ROWS else torch.cat([each[name] for each in micro_batches])
        for name, value in micro_batches[0].items()
    }


def _number(score: float | None) -> float:
    """A logged reward, 0 for None and TRL's NaN."""
    return 0.0 if score is None or math.isnan(score) else score
