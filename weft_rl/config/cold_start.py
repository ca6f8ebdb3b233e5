"""Options of the cold start: recipe, entropy pass and training data."""

from dataclasses import dataclass, field
from typing import Literal

from weft_rl.config.fields import Block, option
from weft_rl.config.model import LoraConfig
from weft_rl.diffusion.recipes import LossNorm

# Help text shared by all stages that read records.
BAD_RECORDS = (
    "invalid records: error stops, skip drops them (both drop duplicates), strict also stops at "
    "duplicates"
)


@dataclass(frozen=True)
class EntropyPassConfig(Block, prefix="cold_start.entropy_pass."):
    """The forward pass without gradient that gives token entropies."""

    rates: Literal["fresh", "cached"] = option(
        "fresh", "fresh: one forward pass every step; cached: entropies are kept for some epochs"
    )
    refresh_every: int = option(
        5, "epochs between passes over a record, with rates=cached", at_least=1
    )
    dropout: bool = option(False, "keep dropout on")
    precision: Literal["auto", "model", "bf16"] = option(
        "auto",
        "autocast dtype; auto: bf16 if the processor has bf16 matmuls. Entropies are float32",
    )


@dataclass(frozen=True)
class DataConfig(Block, prefix="cold_start.data."):
    """Training examples of the cold start: selection, truncation, batches."""

    max_length: int = option(4096, "maximum tokens of an example, prompt and answer", at_least=1)
    truncation: Literal["drop", "cut_trace", "right"] = option(
        "drop",
        "longer examples: drop, cut the middle of the reasoning (cut_trace) or the end (right)",
    )
    chat_turns: Literal["last", "all"] = option(
        "last",
        "assistant turns of a chat to train on; all: one example per turn, earlier turns as prompt",
    )
    think: Literal["rewrite", "keep"] = option(
        "rewrite",
        "<think>...</think> in a chat answer: rewrite as <reasoning> and <answer>, or keep",
    )
    bad_records: Literal["error", "skip", "strict"] = option("error", BAD_RECORDS)
    num_records: int | None = option(
        None,
        "number of records to draw; null: all, or the number of the published subset",
        at_least=1,
    )
    below_tokens: int | None = option(
        None, "keep records with a smaller num_tokens column; null: as num_records", at_least=1
    )
    # 42 as in WeFT, Appendix B
    draw_seed: int = option(42, "seed of the draw of num_records, the same in all runs", at_least=0)
    pad_in_answer: bool = option(
        False, "train on padding up to the longest example of a batch, as LLaDA's fine-tuning does"
    )
    group_by_length: bool = option(False, "batch examples of similar length: less padding")


@dataclass(frozen=True)
class ColdStartConfig(Block, prefix="cold_start."):
    """Supervised fine-tuning on reasoning traces: sft, weft and other recipes."""

    records: int = option(
        1000, "number of generated traces (data=tiny, sudoku, countdown)", at_least=1
    )
    epochs: float = option(20.0, "passes over the training data", above=0)
    batch_size: int = option(1, "examples per device and forward pass", at_least=1)
    gradient_accumulation_steps: int = option(
        4, "forward and backward passes per optimizer step", at_least=1
    )
    learning_rate: float = option(1e-5, "peak learning rate; linear decay to 0", above=0)
    weight_decay: float = option(0.1, "AdamW weight decay", at_least=0)
    max_grad_norm: float = option(1.0, "gradient clipping: maximum norm", above=0)
    data: DataConfig = field(default_factory=DataConfig)
    loss_norm: LossNorm = option(
        "answer", "divisor of an example's loss: its answer tokens, its masked tokens, or 1"
    )
    exact_elbo: bool = option(False, "weight tokens by dt_i/dt: the exact ELBO")
    t_sampling: Literal["independent", "stratified", "antithetic"] = option(
        "independent", "diffusion times of a batch: independent, stratified, or pairs t and 1 - t"
    )
    entropy_pass: EntropyPassConfig = field(default_factory=EntropyPassConfig)
    ref_model: str | None = option(
        None, "checkpoint of the reference model that rho1 compares token losses with"
    )
    logging_steps: int = option(10, "steps between logged metrics", at_least=1)
    save_steps: int = option(100, "steps between checkpoints", at_least=1)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = (
            "needs a fixed number of answer tokens, and cold_start.data.pad_in_answer changes it "
            "with the batch; use fresh"
        )
        fits = self.entropy_pass.rates == "fresh" or not self.data.pad_in_answer
        self.require(fits, "entropy_pass.rates", rule)
        rule = (
            "needs a fixed divisor, and cold_start.loss_norm=masked is random; use answer or none "
            "there, or stages=[weft_exact]"
        )
        self.require(not self.exact_elbo or self.loss_norm != "masked", "exact_elbo", rule)
        rule = "needs several examples per batch; raise cold_start.batch_size=1, or use independent"
        fits = self.batch_size > 1 or self.t_sampling == "independent"
        self.require(fits, "t_sampling", rule)
