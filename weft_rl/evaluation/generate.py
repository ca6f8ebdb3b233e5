"""Held-out records -> completions -> scores with intervals."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft_rl.config.schema import EvalConfig
from weft_rl.data.prompts import PREFILL, task_prompt
from weft_rl.data.records import Record
from weft_rl.data.text import decode_completion, task_prompt_ids
from weft_rl.evaluation.scores import score_completions
from weft_rl.evaluation.settings import Settings
from weft_rl.models.memory import check_length
from weft_rl.sampler import generate
from weft_rl.sampler.denoise import OnStep, Step
from weft_rl.sampler.unmasking import TraceEntry
from weft_rl.sampler.validation import special_ids
from weft_rl.seeding import seed_for
from weft_rl.stats import record_mean

# Batches that are handed over, and kept, together: more keep the places fuller, fewer lose less
# when an evaluation is interrupted.
PART = 4


@dataclass(frozen=True)
class Completion:
    """One sampled completion of a held-out record, with what each score says of it."""

    record: Record
    prompt: str
    text: str
    scores: dict[str, float]  # by score name, in [0, 1]
    playback: dict[str, Any] | None = None  # for the first ones: what opened when, see playback_of
    undecided: bool = False  # whether a comparison had no verdict in time, and counts as wrong


def require_prompts_fit(
    model_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    settings: Settings,
    options: EvalConfig,
) -> None:
    """Raise UserError, before anything is generated, for a prompt that leaves no room for its
    completion; it names the option that set the length."""
    length = settings.sampler.gen_length
    option = f"sampler.gen_length={length}"
    if options.gen_length is not None:
        option = f"eval.gen_length={length}"
    elif options.preset == "paper":
        option = f"eval.preset=paper: its gen_length={length}"
    ids = _prompts_ids(tokenizer, records, settings)
    lengths = {record.id: len(own) for record, own in zip(records, ids, strict=True)}
    cure = "set a lower eval.gen_length, or evaluate a model with more"
    check_length(model_config, lengths, length, option, cure)


def _prompts_ids(
    tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], settings: Settings
) -> list[list[int]]:
    """Each record's prompt as the model is given it, with the tag that its answer begins with."""
    prefill = tokenizer.encode(PREFILL[settings.style], add_special_tokens=False)
    return [ids + prefill for ids in task_prompt_ids(tokenizer, settings.style, records)]


def sample_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    settings: Settings,
    *,
    batch_size: int,
    seed: int,
    played: int = 0,
    on_step: OnStep | None = None,
) -> Iterator[list[Completion]]:
    """Parts of one scored completion per record; a record's draw depends on (seed, id) only.

    batch_size records are denoised together, and the place of a finished one is taken by the next
    of its part. played: so many of the first part come with their playback. on_step is told of
    every step, with the records of all parts counted."""
    part, account = batch_size * PART, _Account(len(records), on_step)
    for start in range(0, len(records), part):
        batch = records[start : start + part]
        prompts = [task_prompt(settings.style, record.task, record.fields) for record in batch]
        padded = tokenizer.pad(
            {"input_ids": _prompts_ids(tokenizer, batch, settings)},
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        seeds = [seed_for(seed, "evaluation", record.id) for record in batch]
        sampler = replace(settings.sampler, trace=played > 0 and start == 0)
        out = generate(
            model,
            padded["input_ids"],
            sampler,
            padded["attention_mask"],
            seeds,
            batch_size=batch_size,
            on_step=account.told,
        )
        account.next_part(len(batch))
        rows = out.completions.tolist()
        ends = special_ids(model)[1]
        texts = [decode_completion(tokenizer, row, ends) for row in rows]
        scored = score_completions(batch[0].task, texts, [record.fields for record in batch])
        done = []
        for i, (record, text, found) in enumerate(zip(batch, texts, scored, strict=True)):
            playback = None
            if out.trace is not None and i < played:
                playback = playback_of(tokenizer, prompts[i], rows[i], out.trace[i])
            done.append(
                Completion(record, prompts[i], text, found.scores, playback, found.undecided)
            )
        yield done


class _Account:
    """Passes on the steps of one part after the other as steps of all records."""

    def __init__(self, total: int, on_step: OnStep | None) -> None:
        self.total, self.on_step, self.begun = total, on_step, time.perf_counter()
        self.records = self.committed = self.forwards = 0  # of the parts before
        self.last: Step | None = None

    def told(self, step: Step) -> None:
        """Take a step of the part in work."""
        self.last = step
        if self.on_step is not None:
            whole = replace(
                step,
                finished=self.records + step.finished,
                total=self.total,
                share=(self.records + step.share * step.total) / self.total,
                committed=self.committed + step.committed,
                forwards=self.forwards + step.forwards,
                seconds=time.perf_counter() - self.begun,
            )
            self.on_step(whole)

    def next_part(self, records: int) -> None:
        """Count a part as done."""
        self.records += records
        if self.last is not None:
            self.committed += self.last.committed
            self.forwards += self.last.forwards


def playback_of(
    tokenizer: PreTrainedTokenizerBase, prompt: str, row: Sequence[int], trace: Sequence[TraceEntry]
) -> dict[str, Any]:
    """A denoising for the report: each token's text, the step that opened it, its confidence.

    Steps count from 1. A token that early stopping left masked is not part of it."""
    entries = sorted(trace, key=lambda entry: entry["position"])
    return {
        "prompt": prompt,
        "tokens": [decode_completion(tokenizer, [row[entry["position"]]]) for entry in entries],
        "opened": [entry["step"] + 1 for entry in entries],
        "confidences": [round(entry["confidence"], 3) for entry in entries],
        "steps": max((entry["step"] + 1 for entry in entries), default=0),
    }


def summarise(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The evaluation entry of a task: percent with 95 % intervals, the first score at the top.

    A score that is only ever 0 or 1 gets Wilson's interval, any other a bootstrap over records:
    for shares of a puzzle's cells the puzzle is the cluster."""
    main, *others = scores[0]
    entry = {"n": len(scores), **_percent([row[main] for row in scores])}
    return entry | {name: _percent([row[name] for row in scores]) for name in others}


def _percent(values: Sequence[float]) -> dict[str, Any]:
    interval = record_mean(values)
    bounds = [round(100 * bound, 2) for bound in (interval.low, interval.high)]
    return {"score": round(100 * interval.mean, 2), "ci95": bounds}
