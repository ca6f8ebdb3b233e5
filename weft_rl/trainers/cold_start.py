"""Supervised fine-tuning of masked diffusion models: SFT, WeFT, variants. B batch, L sequence."""

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftConfig
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
)

from weft_rl.data.sft_examples import Example
from weft_rl.diffusion.log_probs import mask_id_of
from weft_rl.diffusion.noise import antithetic_times, sample_time, stratified_times
from weft_rl.diffusion.recipes import Recipe, recipe_of
from weft_rl.diffusion.tensor_checks import IGNORED
from weft_rl.evaluation.likelihood import nelbo
from weft_rl.seeding import seed_for
from weft_rl.trainers.cold_start_config import ColdStartConfig
from weft_rl.trainers.collator import AnswerCollator, count_sequences
from weft_rl.trainers.entropy_pass import EntropyCache, entropy_pass
from weft_rl.trainers.hub_card import HubCard
from weft_rl.trainers.resume_state import ResumeState, SetEpoch
from weft_rl.trainers.setup import default_tokenizer, load, wrapped
from weft_rl.trainers.sft_dataset import encode_dataset, pad_token
from weft_rl.trainers.weft_loss import SequenceLosses, sequence_loss


class ColdStartTrainer(HubCard, ResumeState, Trainer):
    """transformers' Trainer with the loss of a cold-start recipe.

    model: a folder, Hub id, run checkpoint or adapter, or a masked language model whose config has
    mask_token_id. train_dataset, eval_dataset (or a dict of them): rows with prompt and completion
    (texts or chats), messages, conversations, s1K's columns, or input_ids and labels. Of a chat,
    the last answer is trained on. processing_class: the tokenizer; None: the model's. peft_config:
    adds a PEFT adapter.
    data_collator: an AnswerCollator; None: one with the model's pad token. recipe: a Recipe instead
    of args.recipe. reference: rho1's reference model. Other arguments are those of
    transformers.Trainer. Raises ValueError for rows that cannot be trained on, with their number.

    evaluate() returns eval_nelbo: a bound on -log p(answer | prompt) in nats per answer token,
    estimated without bias from args.eval_mc_samples masks that are the same in every evaluation,
    its standard error eval_nelbo_se over examples, and eval_loss, which equals eval_nelbo.

    >>> from weft_rl import ColdStartConfig, ColdStartTrainer
    >>> from weft_rl.config.schema import BaseConfig
    >>> from weft_rl.models.loading import fresh_model
    >>> from weft_rl.models.toy import tiny_config, tiny_tokenizer
    >>> chat = [{"role": role, "content": "2"} for role in ("user", "assistant")]
    >>> trainer = ColdStartTrainer(
    ...     fresh_model(tiny_config(BaseConfig()), seed=0),  # or a folder or Hub id
    ...     ColdStartConfig("out", recipe="weft", report_to="none"),
    ...     eval_dataset=[{"messages": chat}],
    ...     processing_class=tiny_tokenizer(),
    ... )
    >>> 3 < trainer.evaluate()["eval_nelbo"] < 5  # untrained: log 53 = 4.0; then trainer.train()
    True
    """

    # micro-batch losses are shares of the step's loss: the Trainer only sums them
    loss_is_scaled_for_ga = True
    args: ColdStartConfig
    data_collator: AnswerCollator
    card_arguments = (
        *("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("learning_rate", "weight_decay", "loss_norm", "exact_elbo", "t_sampling", "max_length"),
        "seed",
    )
    card_evaluation = "nelbo: bound on -log p(answer | prompt) in nats per answer token."

    def __init__(
        self,
        model: PreTrainedModel | str,
        args: ColdStartConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        data_collator: AnswerCollator | None = None,
        callbacks: list[TrainerCallback] | None = None,
        *,
        recipe: Recipe | None = None,
        reference: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or ColdStartConfig("trainer_output")
        if not isinstance(data_collator, AnswerCollator | None):
            kind = type(data_collator).__name__
            raise ValueError(f"data_collator: must be an AnswerCollator, got {kind}")
        tokenizer = default_tokenizer(model) if processing_class is None else processing_class
        network = load(model, args, bool(peft_config))
        mask_id_of(network)
        self.recipe = (recipe or recipe_of(args.recipe)).resolved(args.loss_norm, args.exact_elbo)
        if self.recipe.needs_reference and reference is None:
            raise ValueError(f"recipe={self.recipe.name!r}: needs reference=, a reference model")

        if isinstance(train_dataset, Mapping):
            names = ", ".join(map(repr, train_dataset))
            raise ValueError(f"train_dataset: got a dictionary of datasets; give one of {names}")
        best = args.metric_for_best_model
        if isinstance(eval_dataset, Mapping) and args.load_best_model_at_end and best == "nelbo":
            names = ", ".join(f"{key}_nelbo" for key in eval_dataset)
            raise ValueError(f"metric_for_best_model: several bounds; name one of {names}")

        def encoded(name: str, dataset: Any) -> Any:
            if dataset is None:
                return None
            if isinstance(dataset, Mapping):
                return {key: encoded(f"{name}[{key!r}]", each) for key, each in dataset.items()}
            return encode_dataset(name, dataset, tokenizer, network.config, args)

        super().__init__(
            model=wrapped(network, peft_config, args.seed),
            args=args,
            data_collator=data_collator
            or AnswerCollator(pad_token(tokenizer, network.config), args.pad_in_answer),
            train_dataset=encoded("train_dataset", train_dataset),
            eval_dataset=encoded("eval_dataset", eval_dataset),
            processing_class=tokenizer,
            callbacks=callbacks,
            **kwargs,
        )
        self.entropy_cache = EntropyCache(args.entropy_refresh_epochs or 1)
        self.reference = None if reference is None else reference.to(args.device).eval()
        self.add_callback(SetEpoch(self.data_collator))

    @property
    def method_label(self) -> str:
        """Name of the recipe."""
        return self.recipe.label

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
        # 1. clean tokens, and a generator and a time per sequence
        x0, visible, example_ids = (
            inputs[k] for k in ("input_ids", "attention_mask", "example_ids")
        )
        answer = inputs["labels"] != IGNORED
        generators = self._generators("mask", example_ids)
        token_generators = self._generators("token", example_ids)
        # 2. entropies of the fully masked answer, cached or computed
        entropy = self.entropies(model, inputs)
        # 3. a loss per sequence
        t = self.times(generators, example_ids)
        batch = (model, x0, visible, answer)
        draws = (t, generators, token_generators)
        result = sequence_loss(*batch, self.recipe, entropy, *draws, self.reference)
        # 4. their share of the step's mean
        counted = inputs.get("counted", torch.ones_like(x0[:, 0], dtype=torch.bool))  # (B,)
        loss = result.losses.where(counted, 0.0).mean()
        if num_items_in_batch is not None:
            # gradients are averaged over processes
            loss = loss / (num_items_in_batch / (len(x0) * self.accelerator.num_processes))
        self.record(x0, answer & counted[:, None], result, entropy)
        return loss

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as ResumeState, with entropies of this model."""
        self.entropy_cache = EntropyCache(self.entropy_cache.refresh_epochs)
        return super().train(*args, **kwargs)

    @property
    def method(self) -> dict[str, Any]:
        """What a resumed run should have as before."""
        recipe, dataset = self.recipe, self.train_dataset
        return super().method | {
            "recipe": recipe.name,
            "loss_norm": recipe.loss_norm,
            "exact_elbo": recipe.exact_elbo,
            "examples": len(dataset) if isinstance(dataset, Sized) else None,
        }

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
                train_mode=self.args.entropy_dropout,
                bf16=self.args.entropy_bf16,
            )

        return self.entropy_cache.get(inputs["example_ids"], answer, compute)

    def times(self, generators: Sequence[torch.Generator], example_ids: Tensor) -> Tensor:
        """A time per row (B, 1); t_sampling does not change the state of the generators."""
        t, kind = sample_time(generators), self.args.t_sampling
        if kind == "independent":
            return t
        seed = seed_for(self.args.seed, "times", *example_ids[0].tolist())
        draw = stratified_times if kind == "stratified" else antithetic_times
        return draw(len(example_ids), torch.Generator().manual_seed(seed))

    def _generators(self, name: str, example_ids: Tensor) -> list[torch.Generator]:
        return [
            torch.Generator().manual_seed(seed_for(self.args.seed, name, *row))
            for row in example_ids.tolist()
        ]

    def record(
        self, x0: Tensor, answer: Tensor, result: SequenceLosses, entropy: Tensor | None
    ) -> None:
        """Hook for batch metrics; a no-op here. answer: of counted sequences."""

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | None]:
        """Return an optimizer step's batches and their number of sequences."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        return count_sequences(batches, self.accelerator)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return nelbo and nelbo_se of the held-out examples; see the class. Collective."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("evaluate() needs an eval_dataset, of the trainer or its argument")
        if isinstance(dataset, Mapping):
            metrics: dict[str, float] = {}
            for name, each in dataset.items():
                metrics |= self.evaluate(each, ignore_keys, f"{metric_key_prefix}_{name}")
            return metrics
        config = self.accelerator.unwrap_model(self.model).config
        tokenizer: Any = self.processing_class
        examples = encode_dataset("eval_dataset", dataset, tokenizer, config, self.args)
        values = self._nelbo_per_token(examples)
        mean = float(values.mean())
        error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
        metrics = {
            f"{metric_key_prefix}_{name}": value
            for name, value in (("nelbo", mean), ("nelbo_se", error), ("loss", mean))
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _nelbo_per_token(self, examples: Sequence[Example]) -> Tensor:
        """Bound of each example in nats per answer token: (N,) float64, over all processes."""
        model: Any = self.model_wrapped
        collator = AnswerCollator(self.data_collator.pad_id)  # the same tokens in any batch
        size, rank = self.args.per_device_eval_batch_size, self.accelerator.process_index
        processes, total = self.accelerator.num_processes, len(examples)
        part: list[tuple[int, float]] = []
        # sharded models run the same number of batches on every process: the last ones repeat
        for begin in range(0, total, size * processes):
            rows = [(begin + rank * size + i) % total for i in range(size)]
            batch = collator([examples[row] for row in rows])
            tensors = {name: batch[name].to(self.args.device) for name in batch}
            bound = nelbo(
                model,
                tensors["input_ids"],
                tensors["labels"],
                tensors["attention_mask"],
                num_mc_samples=self.args.eval_mc_samples,
                seed=[seed_for(self.args.seed, "eval", row) for row in rows],
            )
            tokens = (tensors["labels"] != IGNORED).sum(-1)
            part += zip(rows, (bound / tokens).tolist(), strict=True)
        by_row = dict(gather_object(part))
        return torch.tensor([by_row[row] for row in range(total)], dtype=torch.float64)

    def save_resume_state(self, folder: Path) -> None:
        """Add cached entropies."""
        super().save_resume_state(folder)
        if self.rank == 0:
            self.entropy_cache.save(folder)

    def load_resume_state(self, folder: Path) -> None:
        """Restore cached entropies."""
        super().load_resume_state(folder)
        self.entropy_cache.load(folder)
