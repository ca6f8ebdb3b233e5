"""Arguments of a cold start."""

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

from weft_rl.data.sft_examples import Truncation
from weft_rl.diffusion.recipes import LossNorm, recipe_of
from weft_rl.trainers.setup import require_choices

# Sampling of times in a batch: independent, one per stratum, or in pairs t, 1 - t.
TimeSampling = Literal["independent", "stratified", "antithetic"]


@dataclass
class ColdStartConfig(TrainingArguments):
    """Arguments of a ColdStartTrainer, besides those of transformers.TrainingArguments.

    recipe: a name of weft_rl.diffusion.recipes.RECIPES: "sft", "weft" (also called "gift"), ...
    loss_norm: divisor of a sequence's loss: "answer" (length), "masked" (masked tokens) or "none".
    exact_elbo: weight tokens so that the mean loss is the exact ELBO. Recipes that fix loss_norm or
    exact_elbo keep their own. t_sampling: diffusion times of a batch: "independent", "stratified"
    or "antithetic" pairs t and 1 - t. entropy_refresh_epochs: epochs between two entropy passes
    over an example; None: a pass in every step. entropy_dropout, entropy_bf16: dropout and bfloat16
    autocast in the entropy pass.

    max_length: maximum tokens of an example, prompt and completion; None: the model's positions.
    truncation of longer ones: "drop" them, cut the middle of the reasoning ("cut_trace") or the end
    ("right"). prompt_style: instruction with questions of s1K records: "d1", "chat" or "tiny"
    (none).
    think: <think>...</think> in a chat's answer: "keep" it, or "rewrite" it as <reasoning> and
    <answer> with d1's instruction before the question. pad_in_answer: train on padding up to the
    longest example of a batch, as LLaDA's fine-tuning.
    eval_mc_samples: masks per example in evaluate().

    seed: of masks and times, which depend on (seed, epoch, example) only.
    load_best_model_at_end selects by "nelbo" unless metric_for_best_model is set."""

    learning_rate: float = field(default=1e-5, metadata={"help": "peak learning rate"})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "must stay False: the collator needs the examples"}
    )
    recipe: str = field(default="weft", metadata={"help": "cold-start recipe"})
    loss_norm: LossNorm = field(default="answer", metadata={"help": "divisor of a loss"})
    exact_elbo: bool = field(default=False, metadata={"help": "weights of the exact ELBO"})
    t_sampling: TimeSampling = field(
        default="independent", metadata={"help": "sampling of a batch's diffusion times"}
    )
    entropy_refresh_epochs: int | None = field(
        default=None, metadata={"help": "epochs between entropy passes over an example"}
    )
    entropy_dropout: bool = field(default=False, metadata={"help": "dropout in the entropy pass"})
    entropy_bf16: bool = field(default=False, metadata={"help": "bfloat16 in the entropy pass"})
    max_length: int | None = field(default=None, metadata={"help": "maximum tokens per example"})
    truncation: Truncation = field(default="drop", metadata={"help": "of longer examples"})
    prompt_style: Literal["chat", "d1", "tiny"] = field(
        default="d1", metadata={"help": "instruction with questions of s1K records"}
    )
    think: Literal["keep", "rewrite"] = field(
        default="keep", metadata={"help": "of <think> in chat answers"}
    )
    pad_in_answer: bool = field(default=False, metadata={"help": "train on padding"})
    eval_mc_samples: int = field(default=8, metadata={"help": "masks per example in evaluate()"})

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model, self.greater_is_better = "nelbo", False
        super().__post_init__()
        require_choices(self, ("t_sampling", "loss_norm", "truncation", "prompt_style", "think"))
        recipe = recipe_of(self.recipe).resolved(self.loss_norm, self.exact_elbo)
        if recipe.exact_elbo and recipe.loss_norm == "masked":
            raise ValueError(
                "exact_elbo=True: needs a fixed divisor, and loss_norm='masked' is random; use "
                "'answer' or 'none'"
            )
        if self.entropy_refresh_epochs not in (None, 1) and self.pad_in_answer:
            raise ValueError(
                "entropy_refresh_epochs: needs a fixed number of answer tokens, and pad_in_answer "
                "changes it with the batch; leave one out"
            )
        if self.eval_mc_samples < 1:
            raise ValueError(f"eval_mc_samples={self.eval_mc_samples}: must be at least 1")
        if self.dataloader_persistent_workers:
            raise ValueError(
                "dataloader_persistent_workers=True: workers would keep the first epoch's masks; "
                "leave it out"
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns=True: would remove the answers; leave it out")
