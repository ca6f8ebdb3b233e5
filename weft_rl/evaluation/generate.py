"""Held-out evaluation: records, completions, scores with intervals."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft_rl.config.schema import EvalConfig
from weft_rl.data.prompts import PREFILL
from weft_rl.data.records import Record
from weft_rl.data.tasks import task_chat
from weft_rl.data.text import decode_completion, task_prompt_ids, token_text
from weft_rl.evaluation.scores import percent, percent_bounds, score_completions
from weft_rl.evaluation.settings import Settings
from weft_rl.models.memory import check_length
from weft_rl.sampler import generate
from weft_rl.sampler.denoise import OnStep, Step
from weft_rl.sampler.prompts import pad_left
from weft_rl.sampler.unmasking import TraceEntry
from weft_rl.sampler.validation import special_ids
from weft_rl.seeding import seed_for
from weft_rl.stats import record_mean

# Batches per part. More batches keep the sampler's rows filled; fewer lose less work when an
# evaluation is interrupted.
PART = 4


@dataclass(frozen=True)
class Completion:
    """A sampled completion of a held-out record, with its scores."""

    record: Record
    prompt: str
    text: str
    scores: dict[str, float]  # by score name, in [0, 1]
    replay: dict[str, Any] | None = None  # see denoising_replay
    undecided: bool = False  # an answer check timed out; it counts as wrong


def require_prompts_fit(
    model_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    settings: Settings,
    options: EvalConfig,
) -> None:
    """Raise UserError, naming the length option, for a prompt without room for its completion."""
    length = settings.sampler.gen_length
    option = f"sampler.gen_length={length}"
    if options.gen_length is not None:
        option = f"eval.gen_length={length}"
    elif options.preset == "paper":
        option = f"eval.preset=paper: its gen_length={length}"
    lengths = prompt_lengths(tokenizer, records, settings)
    fix = "set a lower eval.gen_length, or evaluate a model with more"
    check_length(model_config, lengths, length, option, fix)


def prompt_lengths(
    tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], settings: Settings
) -> dict[str, int]:
    """Return the number of tokens of each record's prompt by id, with the prefilled tag."""
    prompts = _prompt_ids(tokenizer, records, settings)
    return {record.id: len(ids) for record, ids in zip(records, prompts, strict=True)}


def _prompt_ids(
    tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], settings: Settings
) -> list[list[int]]:
    prefill = tokenizer.encode(PREFILL[settings.style], add_special_tokens=False)
    return [ids + prefill for ids in task_prompt_ids(tokenizer, settings.wording, records)]


def sample_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    settings: Settings,
    *,
    batch_size: int,
    seed: int,
    num_replays: int = 0,
    on_step: OnStep | None = None,
) -> Iterator[list[Completion]]:
    """Yield scored completions in parts. A record's randomness depends on (seed, id) only.

    batch_size: records denoised together; a finished record's row is reused within the part.
    num_replays: completions of the first part with a replay. on_step: called after every step, with
    counts over all records."""
    part = batch_size * PART
    progress = on_step and _Progress(len(records), on_step)
    for start in range(0, len(records), part):
        batch = records[start : start + part]
        prompts = [task_chat(settings.wording, record)[-1]["content"] for record in batch]
        ids, visible = pad_left(_prompt_ids(tokenizer, batch, settings), tokenizer, model.device)
        out = generate(
            model,
            ids,
            replace(settings.sampler, trace=num_replays > 0 and start == 0),
            visible,
            [seed_for(seed, "evaluation", record.id) for record in batch],
            batch_size=batch_size,
            on_step=progress,
        )
        rows, end_ids = out.completions.tolist(), special_ids(model)[1]
        texts = [decode_completion(tokenizer, row, end_ids) for row in rows]
        scored = score_completions(batch[0].task, texts, [record.fields for record in batch])
        replays = [
            denoising_replay(tokenizer, *each)
            for each in zip(prompts, rows, (out.trace or [])[:num_replays], strict=False)
        ]
        yield [
            Completion(record, prompt, text, each.scores, replay, each.undecided)
            for record, prompt, text, each, replay in zip_longest(
                batch, prompts, texts, scored, replays
            )
        ]


class _Progress:
    """Step callback that adds the counts of previous parts to those of the current one."""

    def __init__(self, total: int, on_step: OnStep) -> None:
        self.total, self.on_step, self.started = total, on_step, time.perf_counter()
        self.finished = self.committed = self.forwards = 0  # in previous parts

    def __call__(self, step: Step) -> None:
        finished = self.finished + step.finished
        committed, forwards = self.committed + step.committed, self.forwards + step.forwards
        self.on_step(
            replace(
                step,
                finished=finished,
                total=self.total,
                share=(self.finished + step.share * step.total) / self.total,
                committed=committed,
                forwards=forwards,
                seconds=time.perf_counter() - self.started,
            )
        )
        if step.finished == step.total:
            self.finished, self.committed, self.forwards = finished, committed, forwards


def denoising_replay(
    tokenizer: PreTrainedTokenizerBase, prompt: str, row: Sequence[int], trace: Sequence[TraceEntry]
) -> dict[str, Any]:
    """Return text, step (from 1) and confidence per token for the report, without masked tokens."""
    entries = sorted(trace, key=lambda entry: entry["position"])
    steps = [entry["step"] + 1 for entry in entries]
    return {
        "prompt": prompt,
        "tokens": [token_text(tokenizer, row[entry["position"]]) for entry in entries],
        "opened": steps,
        "confidences": [round(entry["confidence"], 3) for entry in entries],
        "steps": max(steps, default=0),
    }


def summarize(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return a task's entry in eval.json: percent with 95% intervals, the first score at the top.

    Non-binary scores get a bootstrap over records: the cells of a puzzle are not independent."""
    entries: dict[str, dict[str, Any]] = {}
    for name in scores[0]:
        interval = record_mean([row[name] for row in scores])
        entries[name] = {"score": percent(interval.mean), "ci95": percent_bounds(interval)}
    return {"n": len(scores), **entries.pop(next(iter(scores[0]))), **entries}
