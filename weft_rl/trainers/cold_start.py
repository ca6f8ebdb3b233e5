"""Supervised fine-tuning of masked diffusion models: SFT, WeFT, variants. B batch, L sequence."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState

from weft_rl.diffusion.exact_elbo import (
    elbo_weights,
    survival_mask_probability,
    token_log_survival,
)
from weft_rl.diffusion.losses import sequence_losses
from weft_rl.diffusion.noise import antithetic_times, mask_tokens, sample_time, stratified_times
from weft_rl.diffusion.rates import mean_rate, rates_of, usable_rates
from weft_rl.diffusion.recipes import RECIPES, Recipe
from weft_rl.diffusion.tensor_checks import widen
from weft_rl.diffusion.token_weights import dream_weights, excess_loss_selection, own_probability
from weft_rl.seeding import seed_for
from weft_rl.trainers.collator import IGNORED, AnswerCollator, count_sequences
from weft_rl.trainers.entropy_pass import EntropyCache, entropy_pass

# Sampling of times in a batch: independent, one per stratum, or in pairs t, 1 - t.
TimeSampling = Literal["independent", "stratified", "antithetic"]
# Share of tokens of highest excess loss that the authors of Rho-1 keep.
_SELECTED_SHARE = 0.6


def masked_nll(
    model: nn.Module, x0: Tensor, xt: Tensor, masked: Tensor, attention_mask: Tensor
) -> Tensor:
    """-log p(x0) of the masked tokens of xt, 0 elsewhere: (B, L) float32.

    x0, xt, attention_mask: (B, L) long. masked: (B, L) bool. Computes logits of masked tokens only,
    in chunks: those of 4,096 LLaDA tokens take 2 GB."""
    targets = x0[masked]  # (M,)

    def token_nll(logits: Tensor, begin: int) -> Tensor:
        ids = targets[begin : begin + len(logits)]
        return F.cross_entropy(widen(logits), ids, reduction="none")

    nll = model(
        input_ids=xt,
        attention_mask=attention_mask,
        logits_to_keep=masked.nonzero(as_tuple=True),
        logits_fn=token_nll,
    ).logits
    return nll.new_zeros(x0.shape).masked_scatter(masked, nll)


class ColdStartTrainer(Trainer):
    """transformers' Trainer with a cold-start loss; the formulas are in weft_rl.diffusion.

    recipe: a Recipe or its name; loss_norm and exact_elbo default to "answer" and False. seed: of
    masks and times, which depend only on (seed, epoch, example); None: args.seed. t_sampling:
    sampling of a batch's times. refresh_epochs: epochs between entropy passes over an example.
    entropy_dropout, entropy_bf16: dropout and bfloat16 in the entropy pass. reference: rho1's
    reference model. data_collator: an AnswerCollator; None: one with the model's pad token."""

    # micro-batch losses are shares of the step's loss: the Trainer only sums them
    loss_is_scaled_for_ga = True
    data_collator: AnswerCollator

    def __init__(
        self,
        model: PreTrainedModel,
        *args: Any,
        recipe: Recipe | str = "weft",
        seed: int | None = None,
        t_sampling: TimeSampling = "independent",
        refresh_epochs: int = 1,
        entropy_dropout: bool = False,
        entropy_bf16: bool = False,
        reference: PreTrainedModel | None = None,
        data_collator: AnswerCollator | None = None,
        **kwargs: Any,
    ) -> None:
        collator = data_collator or AnswerCollator(int(model.config.pad_token_id))
        super().__init__(model, *args, data_collator=collator, **kwargs)
        named = RECIPES[recipe] if isinstance(recipe, str) else recipe
        self.recipe = named.resolved("answer", False)
        self.seed = self.args.seed if seed is None else seed
        self.t_sampling: TimeSampling = t_sampling
        self.entropy_cache = EntropyCache(refresh_epochs)
        self.entropy_dropout, self.entropy_bf16 = entropy_dropout, entropy_bf16
        self.reference = None if reference is None else reference.to(self.args.device).eval()
        self.add_callback(SetEpoch(self.data_collator))

    def compute_loss(  # ty: ignore[incompatible-method-override] - outputs are never requested
        self,
        model: PreTrainedModel,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """Share of a collated batch in the mean loss over the step's sequences.

        num_items_in_batch: (), sequences of the step, from get_batch_samples; None: the batch's
        mean. Raises NonFiniteError for non-finite entropies."""
        # 1. clean tokens, and a generator per sequence
        x0, visible, example_ids = (
            inputs[k] for k in ("input_ids", "attention_mask", "example_ids")
        )
        answer = inputs["labels"] != IGNORED
        generators = self._generators("mask", example_ids)
        # 2. entropies of the fully masked answer, and masking rates
        entropy = self.entropies(model, inputs)
        beta = self.rates(entropy, answer)
        beta_ref = mean_rate(beta, answer)
        # 3. a time per sequence, and the mask probability of each token
        log_survival = self._log_survival(generators, example_ids, beta, beta_ref, answer)
        probability = survival_mask_probability(log_survival, beta, beta_ref)
        # 4. noised tokens, and the loss of the masked ones
        xt, masked = mask_tokens(x0, probability, answer, mask_id_of(model), generators)
        nll = masked_nll(model, x0, xt, masked, visible)
        # 5. token weights, and exact-ELBO weights
        weight = self.token_weights(model, x0, xt, masked, visible, nll, entropy)
        if self.recipe.exact_elbo:
            slope = elbo_weights(log_survival, beta, beta_ref, answer)
            weight = slope if weight is None else weight * slope
        # 6. a loss per sequence, and their share of the step's mean
        norm = self.recipe.loss_norm or "answer"
        losses = sequence_losses(nll, masked, probability, answer, weight, norm)
        counted = inputs.get("counted", torch.ones_like(x0[:, 0], dtype=torch.bool))  # (B,)
        loss = losses.where(counted, 0.0).mean()
        if num_items_in_batch is not None:
            # gradients are averaged over processes
            loss = loss / (num_items_in_batch / (len(losses) * self.accelerator.num_processes))
        self.record(x0, answer & counted[:, None], masked, beta_ref, entropy)
        return loss

    def entropies(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor | None:
        """The recipe's statistic per answer token (B, L), cached or computed; None without one."""
        statistic, answer = self.recipe.statistic, inputs["labels"] != IGNORED
        if statistic is None:
            return None

        def compute() -> Tensor:
            return entropy_pass(
                model,
                inputs["input_ids"],
                inputs["attention_mask"],
                answer,
                mask_id_of(model),
                statistic,
                train_mode=self.entropy_dropout,
                bf16=self.entropy_bf16,
            )

        return self.entropy_cache.get(inputs["example_ids"], answer, compute)

    def rates(self, entropy: Tensor | None, answer: Tensor) -> Tensor:
        """Masking rates (B, L) with the floor of usable_rates."""
        values = answer.float() if entropy is None else entropy
        return usable_rates(torch.where(answer, rates_of(self.recipe.rates, values), 0.0), answer)

    def token_weights(
        self,
        model: nn.Module,
        x0: Tensor,
        xt: Tensor,
        masked: Tensor,
        visible: Tensor,
        nll: Tensor,
        entropy: Tensor | None,
    ) -> Tensor | None:
        """Weights (B, L) of the masked tokens' losses nll (B, L); None: 1 for all."""
        match self.recipe.token_weights:
            case "sqrt_entropy" if entropy is not None:
                return entropy.sqrt()
            case "dream":
                return dream_weights(masked, visible.bool())
            case "own_probability":
                return own_probability(nll)
            case "excess_loss" if self.reference is not None:
                with torch.no_grad():
                    other = masked_nll(self.reference, x0, xt, masked, visible)
                return excess_loss_selection(nll.detach(), other, masked, _SELECTED_SHARE)
        return None

    def record(
        self,
        x0: Tensor,
        answer: Tensor,
        masked: Tensor,
        beta_ref: Tensor,
        entropy: Tensor | None,
    ) -> None:
        """Hook for batch metrics; a no-op here. answer: of counted sequences."""

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | None]:
        """Return an optimizer step's batches and their number of sequences."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        return count_sequences(batches, self.accelerator)

    def _log_survival(
        self,
        generators: Sequence[torch.Generator],
        example_ids: Tensor,
        beta: Tensor,
        beta_ref: Tensor,
        answer: Tensor,
    ) -> Tensor:
        t = self.times(generators, example_ids).to(beta.device)
        if not self.recipe.exact_elbo:
            return -torch.log1p(-t)
        token_generators = self._generators("token", example_ids)
        return token_log_survival(t, beta, beta_ref, answer, token_generators)

    def times(self, generators: Sequence[torch.Generator], example_ids: Tensor) -> Tensor:
        """A time per row (B, 1); t_sampling does not change the state of the generators."""
        t = sample_time(generators)
        if self.t_sampling == "independent":
            return t
        seed = seed_for(self.seed, "times", *example_ids[0].tolist())
        draw = stratified_times if self.t_sampling == "stratified" else antithetic_times
        return draw(len(example_ids), torch.Generator().manual_seed(seed))

    def _generators(self, name: str, example_ids: Tensor) -> list[torch.Generator]:
        return [
            torch.Generator().manual_seed(seed_for(self.seed, name, *row))
            for row in example_ids.tolist()
        ]


class SetEpoch(TrainerCallback):
    """Sets `epoch` of collators and samplers."""

    def __init__(self, *targets: Any) -> None:
        self.targets = targets

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Set the current epoch."""
        for target in self.targets:
            target.epoch = int(state.epoch or 0)


def mask_id_of(model: Any) -> int:
    """Mask token id of a model, also if wrapped for distributed training."""
    return getattr(model, "module", model).config.mask_token_id
