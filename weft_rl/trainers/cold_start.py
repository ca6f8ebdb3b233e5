"""Supervised fine-tuning of a masked diffusion model on answers: SFT, WeFT and relatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from weft_rl.data.traces import Example
from weft_rl.diffusion.losses import Normalizer, denoising_loss
from weft_rl.diffusion.noise import mask_probability, mask_slope, mask_tokens, sample_time
from weft_rl.diffusion.rates import RateKind, mean_rate, token_rates, usable_rates
from weft_rl.seeding import seed_for
from weft_rl.trainers.checkpoints import AtomicCheckpoints


@dataclass(frozen=True)
class Objective:
    """What the cold start minimises: the rates, how a sequence is normalised, the slope."""

    rates: RateKind
    normalizer: Normalizer = "answer"
    slope: bool = False


class AnswerCollator:
    """Pads examples to their longest and names what seeds their masks; set `epoch` before a pass.

    The masks of (epoch, example) are the same in any batch, and after a resume."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id, self.epoch = pad_id, 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Returns x0 (B, L) long, attention_mask (B, L) long, answer (B, L) bool, keys (B, 2)."""
        length = max(len(example.ids) for example in examples)
        x0 = torch.full((len(examples), length), self.pad_id)
        attention_mask, answer = torch.zeros_like(x0), torch.zeros_like(x0, dtype=torch.bool)
        for row, example in enumerate(examples):
            end = len(example.ids)
            x0[row, :end] = torch.tensor(example.ids)
            attention_mask[row, :end] = 1
            answer[row, example.prompt_length : end] = True
        keys = torch.tensor([[self.epoch, example.index] for example in examples])
        return {"x0": x0, "attention_mask": attention_mask, "answer": answer, "keys": keys}


class ColdStartTrainer(AtomicCheckpoints):
    """One loss method; the mathematics is in weft_rl.diffusion."""

    # the loss is a mean over the micro-batch's sequences: the Trainer divides by the window
    loss_is_scaled_for_ga = False
    data_collator: AnswerCollator

    def __init__(self, *args: Any, objective: Objective, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # not `objective`: the Trainer keeps a number of its own under that name
        self.method, self.seed = objective, seed
        self._sums: dict[str, list[float]] = {}

    @torch.no_grad()
    def estimate_rates(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        """Rates (B, L) from one forward with the whole answer masked, dropout off."""
        x0, answer = batch["x0"], batch["answer"]
        if self.method.rates == "uniform":
            return answer.float()
        mask_id, training = model.config.mask_token_id, model.training
        model.eval()
        try:
            xt = x0.masked_fill(answer, mask_id)
            logits = model(input_ids=xt, attention_mask=batch["attention_mask"]).logits
        finally:
            model.train(training)
        return token_rates(self.method.rates, logits, x0, answer)

    def compute_loss(  # ty: ignore[incompatible-method-override] - never asked for outputs here
        self,
        model: PreTrainedModel,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """The Trainer passes a collated batch and gets the mean loss of its sequences."""
        x0, answer = inputs["x0"], inputs["answer"]
        generators = [
            torch.Generator().manual_seed(seed_for(self.seed, "mask", *key))
            for key in inputs["keys"].tolist()
        ]
        estimate = self.estimate_rates(model, inputs)
        beta = usable_rates(estimate, answer)
        beta_ref = mean_rate(beta, answer)
        t = sample_time(generators).to(x0.device)
        probability = mask_probability(t, beta, beta_ref)
        weight = mask_slope(t, beta, beta_ref) if self.method.slope else None
        mask_id = model.config.mask_token_id
        xt, masked = mask_tokens(x0, probability, answer, mask_id, generators)
        logits = model(input_ids=xt, attention_mask=inputs["attention_mask"]).logits
        self._record(beta_ref=beta_ref.mean(), mask_fraction=masked.sum() / answer.sum())
        if self.method.rates in ("sqrt_entropy", "entropy"):
            power = 2 if self.method.rates == "sqrt_entropy" else 1
            self._record(token_entropy=(estimate**power).sum() / answer.sum())
        return denoising_loss(
            logits, x0, masked, probability, answer, weight, self.method.normalizer
        )

    def _record(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._sums.setdefault(name, []).append(float(value))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of what was recorded since the last line."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._sums.items()}
            self._sums = {}
        super().log(logs, start_time)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers runs one epoch here; the collator must know which before it is iterated."""
        self.data_collator.epoch = int(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)
