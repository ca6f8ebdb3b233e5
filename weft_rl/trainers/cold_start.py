"""Supervised fine-tuning of a masked diffusion model on answers: SFT, WeFT and relatives."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from weft_rl.diffusion.exact_elbo import clock_of_one_token, clock_probability, elbo_weights
from weft_rl.diffusion.losses import sequence_losses
from weft_rl.diffusion.noise import antithetic_times, mask_tokens, sample_time, stratified_times
from weft_rl.diffusion.precision import widen
from weft_rl.diffusion.rates import mean_rate, rates_of, token_entropy, token_nll, usable_rates
from weft_rl.diffusion.token_weights import dream_weights, excess_loss_selection, own_probability
from weft_rl.errors import UserError
from weft_rl.seeding import seed_for
from weft_rl.trainers.collator import AnswerCollator
from weft_rl.trainers.entropy_pass import EntropyCache, estimate
from weft_rl.trainers.infra.atomic_checkpoints import AtomicCheckpoints
from weft_rl.trainers.infra.length_sampler import GroupedByLength
from weft_rl.trainers.infra.step_metrics import StepMeans, count_rows
from weft_rl.trainers.infra.token_entropy_log import TokenTable
from weft_rl.trainers.recipes import Recipe, Times

# Rho-1 trains on the tokens with the highest excess loss; its authors keep 60 % of them.
_SELECTED_SHARE = 0.6


def masked_nll(model: nn.Module, inputs: dict[str, Tensor], xt: Tensor, masked: Tensor) -> Tensor:
    """-log p(x0) of the masked tokens of xt, 0 elsewhere: (B, L) float32.

    Only they have logits, and a few of them at a time: LLaDA's of 4,096 tokens take 2 GB."""
    x0 = inputs["x0"]
    hidden = x0[masked]  # (M,)

    def of_part(logits: Tensor, begin: int) -> Tensor:
        ids = hidden[begin : begin + len(logits)]
        return F.cross_entropy(widen(logits), ids, reduction="none")

    found = model(
        input_ids=xt,
        attention_mask=inputs["attention_mask"],
        logits_to_keep=masked.nonzero(as_tuple=True),
        logits_fn=of_part,
    ).logits
    return found.new_zeros(x0.shape).masked_scatter(masked, found)


class ColdStartTrainer(AtomicCheckpoints):
    """One loss method; the mathematics is in weft_rl.diffusion."""

    # the loss of a micro-batch is its share of the step's: the Trainer only adds them up
    loss_is_scaled_for_ga = True
    data_collator: AnswerCollator

    def __init__(
        self,
        *args: Any,
        objective: Recipe,
        seed: int,
        times: Times = "independent",
        refresh_every: int = 1,
        estimate_dropout: bool = False,
        estimate_bf16: bool = False,
        reference: PreTrainedModel | None = None,
        order: GroupedByLength | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # not `objective`: the Trainer keeps a number of its own under that name
        self.method, self.seed, self.times = objective, seed, times
        self.estimates = EntropyCache(refresh_every)
        self.estimate_dropout, self.estimate_bf16 = estimate_dropout, estimate_bf16
        self.reference = None if reference is None else reference.to(self.args.device).eval()
        self.token_table = TokenTable(
            int(self.accelerator.unwrap_model(self.model).config.vocab_size)
        )
        self.order = order
        self.means = StepMeans(self.accelerator)
        self._norms: list[float] = []

    def estimated(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor | None:
        """What the estimate pass says of each token (B, L); None for an objective without one."""
        wanted = self.method.estimated
        if wanted is None:
            return None
        mask_id = self._config(model).mask_token_id

        def fresh() -> Tensor:
            return estimate(
                model,
                batch,
                mask_id,
                lambda logits, x0, _: (
                    token_nll(logits, x0) if wanted == "nll" else token_entropy(logits)
                ),
                train_mode=self.estimate_dropout,
                bf16=self.estimate_bf16,
            )

        return self.estimates.get(batch["keys"], batch["answer"], fresh)

    def rates(self, estimated: Tensor | None, answer: Tensor) -> Tensor:
        """Masking rates (B, L) from the estimates, mended where they would break the loss."""
        known = answer.float() if estimated is None else estimated
        return usable_rates(torch.where(answer, rates_of(self.method.rates, known), 0.0), answer)

    def token_weights(
        self,
        inputs: dict[str, Tensor],
        xt: Tensor,
        masked: Tensor,
        nll: Tensor,
        estimated: Tensor | None,
    ) -> Tensor | None:
        """Weights (B, L) of the masked tokens' losses, which are nll (B, L); None is 1 for all."""
        match self.method.weights:
            case "sqrt_entropy" if estimated is not None:
                return estimated.sqrt()
            case "dream":
                return dream_weights(masked, inputs["attention_mask"].bool())
            case "own_probability":
                return own_probability(nll)
            case "excess_loss" if self.reference is not None:
                with torch.no_grad():
                    other = masked_nll(self.reference, inputs, xt, masked)
                return excess_loss_selection(nll.detach(), other, masked, _SELECTED_SHARE)
        return None

    def compute_loss(  # ty: ignore[incompatible-method-override] - never asked for outputs here
        self,
        model: PreTrainedModel,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """The Trainer passes a collated batch and the rows of the step, as get_batch_samples counts
        them, and gets the batch's share of their mean loss; without a number, the batch's own mean.

        Raises UserError naming step and records when the estimate is not finite."""
        x0, answer = inputs["x0"], inputs["answer"]
        generators = [
            torch.Generator().manual_seed(seed_for(self.seed, "mask", *key))
            for key in inputs["keys"].tolist()
        ]
        try:
            estimated = self.estimated(model, inputs)
        except ValueError as error:
            raise self._unusable(f"the estimate ({error})", inputs["keys"]) from error
        beta = self.rates(estimated, answer)
        beta_ref = mean_rate(beta, answer)
        clock = self._clock(generators, inputs, beta, beta_ref)
        probability = clock_probability(clock, beta, beta_ref)
        xt, masked = mask_tokens(
            x0, probability, answer, self._config(model).mask_token_id, generators
        )
        nll = masked_nll(model, inputs, xt, masked)
        weight = self.token_weights(inputs, xt, masked, nll, estimated)
        if self.method.slope:
            slope = elbo_weights(clock, beta, beta_ref, answer)
            weight = slope if weight is None else weight * slope
        each = sequence_losses(nll, masked, probability, answer, weight, self.method.normalizer)
        counted = inputs.get("counted", torch.ones_like(x0[:, 0], dtype=torch.bool))  # (B,)
        loss = each.where(counted, 0.0).mean()
        if num_items_in_batch is not None:
            # gradients are averaged over processes
            loss = loss / (num_items_in_batch / (len(each) * self.accelerator.num_processes))
        self._measure(x0, answer & counted[:, None], masked, beta_ref, estimated)
        return self.checked(loss, inputs["keys"][:, 1].tolist())

    def _measure(
        self,
        x0: Tensor,
        answer: Tensor,
        masked: Tensor,
        beta_ref: Tensor,
        estimated: Tensor | None,
    ) -> None:
        """Take in what metric lines and the token table say of a batch; answer of counted rows."""
        tokens, counted = answer.sum(), answer.any(-1, keepdim=True)
        rows = torch.where(counted, beta_ref, 0.0).sum(), counted.sum()
        parts = {"beta_ref": rows, "mask_fraction": ((masked & answer).sum(), tokens)}
        if self.method.estimated == "entropy" and estimated is not None:
            parts["token_entropy"] = torch.where(answer, estimated, 0.0).sum(), tokens
            self.token_table.add(x0, answer, estimated)
        self.means.add(**parts)

    @staticmethod
    def _config(model: Any) -> Any:
        """The configuration of a model that may be wrapped for several processes."""
        return getattr(model, "module", model).config

    def _clock(
        self,
        generators: Sequence[torch.Generator],
        inputs: dict[str, Tensor],
        beta: Tensor,
        beta_ref: Tensor,
    ) -> Tensor:
        """-log(1 - t) of each row (B, 1): one t for all its tokens, or for the exact bound such
        that the t_i of one of them is what was drawn."""
        drawn = self._times(generators, inputs["keys"]).to(beta.device)
        if not self.method.slope:
            return -torch.log1p(-drawn)
        tokens = [
            torch.Generator().manual_seed(seed_for(self.seed, "token", *key))
            for key in inputs["keys"].tolist()
        ]
        return clock_of_one_token(drawn, beta, beta_ref, inputs["answer"], tokens)

    def _times(self, generators: Sequence[torch.Generator], keys: Tensor) -> Tensor:
        """One time a row (B, 1). Each row's own generator is drawn from whatever the option, so
        that the masks of two runs that differ in it are still the same draws."""
        own = sample_time(generators)
        if self.times == "independent":
            return own
        shared = torch.Generator().manual_seed(seed_for(self.seed, "times", *keys[0].tolist()))
        draw = stratified_times if self.times == "stratified" else antithetic_times
        return draw(len(keys), shared)

    def _unusable(self, what: str, keys: Tensor) -> UserError:
        records = ", ".join(str(index) for _, index in keys.tolist())
        return UserError(
            f"{self.stage}, step {self.state.global_step + 1}: {what} is not finite (records "
            f"{records}, counted from 0); lower cold_start.learning_rate, or look at these records"
        )

    def _since_line(self) -> list[Any]:
        """What the next metric line is of."""
        return [self.means.steps, self._norms]

    def _restore_line(self, kept: list[Any]) -> None:
        """Go on with the metric line that a checkpoint fell in the middle of."""
        self.means.steps, self._norms = kept

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of what was recorded since the last line."""
        if "loss" in logs:
            logs |= {name: fmean(values) for name, values in self.means.steps.items()}
            if self._norms:
                logs["grad_norm_max"], logs["grad_norm_mean"] = max(self._norms), fmean(self._norms)
                logs["grad_norm_median"] = median(self._norms)
            self.means.steps, self._norms = {}, []
        super().log(logs, start_time)

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers asks for each step's gradient norm here, before clipping, and logs one."""
        norm = super()._get_grad_norm(*args, **kwargs)
        self._norms.append(float(norm))
        return norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Transformers asks for the order of the records here."""
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor]:
        """Transformers reads an optimizer step's batches here, and their number of items."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        return count_rows(batches, self.accelerator)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers runs one epoch here; collator and order must know which beforehand."""
        self.data_collator.epoch = int(kwargs["epoch"])
        if self.order is not None:
            self.order.epoch = int(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Transformers saves random states here, on every rank: the estimates go along."""
        super()._save_rng_state(output_dir)
        rank = self.accelerator.process_index
        if rank == 0:
            self.estimates.save(Path(output_dir))
        if self.method.estimated == "entropy":
            self.token_table.save(Path(output_dir), rank)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Transformers restores the optimizer here: the estimates are taken up as well."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.estimates.load(Path(checkpoint))
            self.token_table.load(Path(checkpoint), self.accelerator.process_index)
