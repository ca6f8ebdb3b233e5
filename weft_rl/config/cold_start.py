"""Options within `cold_start`: what it estimates its rates from, and which records it trains on."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from weft_rl.config.fields import Block, option, require
from weft_rl.config.model import LoraConfig

# Of every stage that reads records.
BAD_RECORDS = (
    "error stops at a record that cannot be used, skip leaves it out; repeated ones are left out, "
    "strict stops at them too"
)


@dataclass(frozen=True)
class EntropyPassConfig(Block):
    """The forward pass without gradient that gives token entropies."""

    prefix: ClassVar[str] = "cold_start.entropy_pass."

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
class DataConfig(Block):
    """Which of the cold start's records are trained on, and how they are batched."""

    prefix: ClassVar[str] = "cold_start.data."

    max_length: int = option(4096, "tokens of a record, prompt and answer", at_least=1)
    truncation: Literal["drop", "cut_trace", "right"] = option(
        "drop",
        "longer records are left out, lose the middle of their reasoning, or lose their end",
    )
    chat_turns: Literal["last", "all"] = option(
        "last",
        "answers of a chat trained on; all: each is an example, the turns before it are its prompt",
    )
    think: Literal["rewrite", "keep"] = option(
        "rewrite",
        "<think>...</think> at the start of a chat's answer becomes <reasoning> and <answer>, or "
        "stays",
    )
    bad_records: Literal["error", "skip", "strict"] = option("error", BAD_RECORDS)
    num_records: int | None = option(
        None, "records drawn from the data set; null: all, or what data= names", at_least=1
    )
    below_tokens: int | None = option(
        None, "only records whose num_tokens column is smaller; null: as num_records", at_least=1
    )
    # 42 as in WeFT, Appendix B
    draw_seed: int = option(42, "of the draw of num_records, shared by all runs", at_least=0)
    pad_in_answer: bool = option(
        False, "padding up to a batch's longest record is trained on, as LLaDA's fine-tuning does"
    )
    group_by_length: bool = option(False, "batches of records of like length: less padding")


@dataclass(frozen=True)
class ColdStartConfig(Block):
    """Supervised fine-tuning on reasoning traces: sft, weft and their relatives."""

    prefix: ClassVar[str] = "cold_start."

    records: int = option(1000, "traces generated for data=tiny", at_least=1)
    epochs: float = option(20.0, "passes over the records", above=0)
    batch_size: int = option(1, "records per device and forward pass", at_least=1)
    gradient_accumulation_steps: int = option(4, "passes per optimizer step", at_least=1)
    learning_rate: float = option(1e-5, "peak; linear decay to 0", above=0)
    weight_decay: float = option(0.1, "AdamW's", at_least=0)
    max_grad_norm: float = option(1.0, "longer gradients are scaled down to it", above=0)
    data: DataConfig = field(default_factory=DataConfig)
    loss_norm: Literal["answer", "masked", "none"] = option(
        "answer", "divisor of an example's loss: its answer tokens, its masked tokens, or 1"
    )
    exact_elbo: bool = option(False, "weight tokens by dt_i/dt: the exact ELBO")
    t_sampling: Literal["independent", "stratified", "antithetic"] = option(
        "independent", "diffusion times of a batch: independent, stratified, or pairs t and 1 - t"
    )
    entropy_pass: EntropyPassConfig = field(default_factory=lambda: EntropyPassConfig())
    ref_model: str | None = option(
        None, "checkpoint of the reference model that rho1 compares token losses with"
    )
    logging_steps: int = option(10, "steps between metric lines", at_least=1)
    save_steps: int = option(100, "steps between checkpoints", at_least=1)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = (
            "keeps one rate an answer token, and with cold_start.data.pad_in_answer their number "
            "changes with the batch; use fresh"
        )
        fits = self.entropy_pass.rates == "fresh" or not self.data.pad_in_answer
        require(fits, "cold_start.entropy_pass.rates", self.entropy_pass.rates, rule)
        rule = (
            "is the exact bound of a record divided by a fixed number, and cold_start.loss_norm="
            "masked is a random one; use answer or none there, or stages=[weft_exact]"
        )
        fits = not self.exact_elbo or self.loss_norm != "masked"
        require(fits, "cold_start.exact_elbo", self.exact_elbo, rule)
        rule = (
            "spreads the times of a forward pass, which has one with cold_start.batch_size=1; "
            "raise that, or use independent"
        )
        fits = self.batch_size > 1 or self.t_sampling == "independent"
        require(fits, "cold_start.t_sampling", self.t_sampling, rule)
