"""Held-out records -> completions -> scores with intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rewards.registry import EVALUATION
from weft_rl.config.schema import SamplerConfig
from weft_rl.data.prompts import PromptStyle, task_prompt
from weft_rl.data.records import Record
from weft_rl.data.traces import prompt_ids
from weft_rl.sampler import generate
from weft_rl.seeding import seed_for
from weft_rl.stats import Interval, bootstrap_mean, wilson


@dataclass(frozen=True)
class Completion:
    """One sampled completion of a held-out record, with what each score says of it."""

    record: Record
    prompt: str
    text: str
    scores: dict[str, float]  # by score name, in [0, 1]


def sample_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    style: PromptStyle,
    sampler: SamplerConfig,
    *,
    batch_size: int,
    seed: int,
) -> Iterator[Completion]:
    """Sample one completion per record and score it; a record's draw depends on (seed, id) only."""
    greedy = replace(sampler, trace=False)
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        prompts = [task_prompt(style, record.task, record.fields) for record in batch]
        padded = tokenizer.pad(
            {"input_ids": [prompt_ids(tokenizer, prompt) for prompt in prompts]},
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        seeds = [seed_for(seed, "evaluation", record.id) for record in batch]
        out = generate(model, padded["input_ids"], greedy, padded["attention_mask"], seeds)
        for record, prompt, row, length in zip(
            batch, prompts, out.completions.tolist(), out.lengths.tolist(), strict=True
        ):
            text = str(tokenizer.decode(row[:length]))
            scores = {
                name: score(text, **record.fields)
                for name, score in EVALUATION[record.task].items()
            }
            yield Completion(record, prompt, text, scores)


def summarise(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The evaluation entry of a task: percent with 95 % intervals, the first score at the top.

    A score that is only ever 0 or 1 gets Wilson's interval, any other a bootstrap over records."""
    main, *others = scores[0]
    entry = {"n": len(scores), **_percent([row[main] for row in scores])}
    return entry | {name: _percent([row[name] for row in scores]) for name in others}


def _percent(values: Sequence[float]) -> dict[str, Any]:
    binary = set(values) <= {0.0, 1.0}
    interval: Interval = (
        wilson(round(sum(values)), len(values)) if binary else bootstrap_mean(values)
    )
    bounds = [round(100 * bound, 2) for bound in (interval.low, interval.high)]
    return {"score": round(100 * interval.mean, 2), "ci95": bounds}
