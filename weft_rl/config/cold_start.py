"""Options within `cold_start`: what it estimates its rates from, and which records it trains on."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from weft_rl.config.fields import Block, option

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
