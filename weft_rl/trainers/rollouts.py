"""A rollout's completions by denoising, and further attempts at groups that would teach nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOTrainer

from weft_rl.config.rl import RLConfig
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.diffusion.advantages import equal_groups
from weft_rl.diffusion.logprob_estimators import NEVER
from weft_rl.sampler import SamplerConfig, generate
from weft_rl.sampler.validation import special_ids
from weft_rl.seeding import seed_for
from weft_rl.trainers.infra.fsdp import whole_weights
from weft_rl.trainers.reward_adapter import refuse_failing


class DenoisedRollouts(GRPOTrainer):
    """Puts our sampler where TRL would generate token by token.

    A row's draw depends on the seed, the step and its place in the rollout, not on the process."""

    processing_class: PreTrainedTokenizerBase
    sampler: SamplerConfig
    options: RLConfig
    seed: int
    group: int
    _rollout: tuple[int | str, ...]  # which rollout it is
    _rows: list[dict[str, Any]]  # its N rows
    _extra: dict[str, Tensor]  # what the loss needs of the sampler beside the completions

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """TRL passes N conversations and wants their ids, no images and no other fields."""
        return TextEncoder(self.processing_class).chats(prompts), None, {}

    def _generate(self, prompts: list[Any]) -> Any:
        """TRL wants prompt ids, completion ids, a mask, then the completions that it rewards."""
        ids, completion_ids, mask, _, *others = super()._generate(prompts)
        return ids, completion_ids, mask, self._messages(completion_ids), *others

    def _messages(self, completions: list[list[int]]) -> list[list[dict[str, str]]]:
        """Completions as conversations of one message."""
        _, ends = special_ids(self.accelerator.unwrap_model(self.model))
        texts = [decode_completion(self.processing_class, ids, ends) for ids in completions]
        return [[{"role": "assistant", "content": text}] for text in texts]

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: Any, **__: Any
    ) -> tuple[list[list[int]], None]:
        """TRL passes N prompts, each repeated G times; it wants completions without pads."""
        every = [*range(len(prompt_ids))]
        resampled = 0
        with whole_weights(self) as model:
            completions, canvas, order = self._sample(model, prompt_ids, every, ())
            for attempt in range(self.options.rollout.resample):
                dead, mine = self._equal_rows(completions)
                if not dead:
                    break
                resampled += dead
                if mine:
                    own = [prompt_ids[i] for i in mine]
                    again = self._sample(model, own, mine, ("attempt", attempt))
                    canvas[mine], order[mine] = again[1], again[2]
                    for i, completion in zip(mine, again[0], strict=True):
                        completions[i] = completion
        if self.options.rollout.resample:
            self._metrics["train"]["resampled_groups"].append(resampled)
        if self.options.estimator == "trace":
            self._extra = {"canvas": canvas, "order": order}
        return completions, None

    def _calculate_rewards(self, *args: Any) -> Tensor:
        """TRL passes our rows and wants the rewards of all processes' rows: (N, functions)."""
        scores = super()._calculate_rewards(*args)
        refuse_failing(self.reward_funcs)
        return scores

    def _sample(
        self,
        model: PreTrainedModel,
        prompt_ids: list[list[int]],
        rows: Sequence[int],
        attempt: tuple[int | str, ...],
    ) -> tuple[list[list[int]], Tensor, Tensor]:
        """Completions with their end token, the whole canvas and the steps that filled it (T)."""
        padded = self.processing_class.pad(
            {"input_ids": prompt_ids}, padding_side="left", return_tensors="pt"
        ).to(self.accelerator.device)
        first = self.accelerator.process_index * len(self._rows)
        seeds = [
            seed_for(self.seed, "rollout", *self._rollout, first + row, *attempt) for row in rows
        ]
        ids, shown = padded["input_ids"], padded["attention_mask"]
        out = generate(model, ids, self.sampler, shown, seeds)
        order = torch.full_like(out.completions, NEVER)
        for row, entries in enumerate(out.trace or []):
            for entry in entries:
                order[row, entry["position"]] = entry["step"]
        lengths = (out.lengths + 1).clamp(max=self.sampler.gen_length)  # with the end token
        cut = zip(out.completions.tolist(), lengths.tolist(), strict=True)
        return [row[:length] for row, length in cut], out.completions, order

    def _equal_rows(self, completions: list[list[int]]) -> tuple[int, list[int]]:
        """How many groups have equal rewards, on all processes, and our rows that are in one."""
        messages = self._messages(completions)
        prompts = [row["prompt"] for row in self._rows]
        scores = self._calculate_rewards(self._rows, prompts, messages, completions)
        self._pending_metrics.clear()  # counted when the final completions are scored
        rewards = (scores * self.reward_weights.to(scores.device)).sum(1)
        equal = equal_groups(rewards, self.group)
        first = self.accelerator.process_index * len(completions)
        groups = [(first + row) // self.group for row in range(len(completions))]
        return int(equal.sum()), [row for row, own in enumerate(groups) if equal[own]]
