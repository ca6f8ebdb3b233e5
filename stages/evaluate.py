"""Evaluation of a checkpoint on held-out records: eval.json and completions."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from weft_rl.config.schema import RunConfig
from weft_rl.data.records import Record
from weft_rl.data.rejects import Rejects
from weft_rl.data.tasks import held_out_records
from weft_rl.distributed import rank_and_world
from weft_rl.evaluation.baselines import BASELINES
from weft_rl.evaluation.generate import (
    PART,
    Completion,
    prompt_lengths,
    require_prompts_fit,
    sample_completions,
    summarize,
)
from weft_rl.evaluation.results_store import ShardedResults
from weft_rl.evaluation.scores import score_completions
from weft_rl.evaluation.settings import Settings, evaluation_settings, is_evaluated
from weft_rl.models.loading import load_model, load_tokenizer
from weft_rl.runs.atomic_io import write_json, write_text
from weft_rl.runs.folder import DENOISING_REPLAY, EVAL, read_results
from weft_rl.sampler.progress import progress_bar
from weft_rl.stages.context import ModelFiles, StageContext, count_tokens, print_rejects

# Number of records with a denoising replay in the report.
_REPLAYS = 2


def run(context: StageContext) -> dict[str, Any]:
    """Score `context.init_checkpoint` under the stage's name; return the content of eval.json.

    Completions are saved per batch, so an interrupted evaluation resumes. Processes (RANK,
    WORLD_SIZE) share the records. A later call for the same stage overwrites its results."""
    config, settings = context.config, evaluation_settings(context.config)
    rejects = _rejects(config)
    records = _records(config, settings, rejects)
    print_rejects(f"eval.data={settings.data}: {len(records)} records", rejects)
    ids = [record.id for record in records]
    dtype = _dtype(context, settings)
    shares = ShardedResults(
        context.run / "completions",
        f"eval-{context.stage}",
        _key(context, settings, records, dtype),
        *rank_and_world(),
    )
    left = {*shares.pending(ids, PART * config.eval.batch_size)}
    results = read_results(context.run)
    # read after `pending`: rank 0 writes the results, then removes the rows
    if shares.rank and is_evaluated(config, results, context.stage):
        return results
    if left:
        shares.open()
        # the report replays the first records; later ones must not replace them
        num_replays = _REPLAYS if shares.rank == 0 and ids[0] in left else 0
        todo = [record for record in records if record.id in left]
        _fill(shares, context, settings, todo, dtype, num_replays)
    if shares.rank:
        shares.wait_until_merged()
        return read_results(context.run)
    rows = shares.gather(ids)
    path = context.run / "completions" / f"eval-{context.stage}.jsonl"
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))
    entry = summarize([row["scores"] for row in rows])
    entry["undecided_answers"] = sum(row.get("undecided", False) for row in rows)
    entry["baselines"] = baseline_scores(config.task, records)
    wording = ("prompt_template", "system")
    used = {
        key: value
        for key, value in asdict(settings).items()
        if key not in wording or value is not None
    }
    entry["settings"] = used | {"device": context.device.type, "dtype": str(dtype)}
    entry["seed"] = config.seed
    results.setdefault(context.stage, {})[config.task] = entry
    write_json(context.run / EVAL, results)
    shares.remove()
    return results


def check(config: RunConfig, files: ModelFiles) -> None:
    """Raise UserError for what an evaluation would reject."""
    settings = evaluation_settings(config)
    records = _records(config, settings, _rejects(config))
    require_prompts_fit(files.network, files.tokenizer, records, settings, config.eval)


def describe(config: RunConfig, files: ModelFiles) -> tuple[str, int]:
    """Describe the held-out prompts; also return the longest one's length."""
    settings = evaluation_settings(config)
    records = _records(config, settings, _rejects(config))
    lengths = [*prompt_lengths(files.tokenizer, records, settings).values()]
    return count_tokens("prompts", lengths), max(lengths)


def _rejects(config: RunConfig) -> Rejects:
    return Rejects(config.eval.bad_records, "eval.bad_records")


def _records(config: RunConfig, settings: Settings, rejects: Rejects) -> list[Record]:
    return held_out_records(config.task, settings.num_records, settings.data, rejects)


def _dtype(context: StageContext, settings: Settings) -> torch.dtype:
    """The run's dtype; bfloat16 on a GPU with d1's evaluation settings."""
    as_d1 = settings.style == "d1_eval" and context.device.type == "cuda"
    return torch.bfloat16 if as_d1 else context.dtype


def _key(
    context: StageContext, settings: Settings, records: Sequence[Record], dtype: torch.dtype
) -> Mapping[str, Any]:
    """Everything that completions depend on; retraining changes the mtime of config.json."""
    model = Path(context.init_checkpoint) / "config.json"
    changed = model.stat().st_mtime_ns if model.exists() else None
    return {
        "model": [context.init_checkpoint, changed, str(dtype)],
        "settings": asdict(settings),
        "seed": context.config.seed,
        "records": [[record.id, record.fields] for record in records],
    }


def _fill(
    shares: ShardedResults,
    context: StageContext,
    settings: Settings,
    records: Sequence[Record],
    dtype: torch.dtype,
    num_replays: int,
) -> None:
    # an adapter trained on 4-bit weights is valid only with them
    nf4 = context.config.memory.weights == "nf4"
    model = load_model(context.init_checkpoint, context.device, dtype, nf4=nf4)
    tokenizer = load_tokenizer(context.init_checkpoint)
    require_prompts_fit(model.config, tokenizer, records, settings, context.config.eval)
    # one bar for all processes: rank 0's share is representative
    label = f"{context.stage}: evaluation"
    bar = progress_bar(label, log=True) if shares.rank == 0 else nullcontext()
    with bar as on_step:
        parts = sample_completions(
            model,
            tokenizer,
            records,
            settings,
            batch_size=context.config.eval.batch_size,
            seed=context.config.seed,
            num_replays=num_replays,
            on_step=on_step,
        )
        for part in parts:
            # before the rows, which mark the part as done
            replays = [done.replay for done in part if done.replay]
            if replays:
                path = context.run / DENOISING_REPLAY.format(stage=context.stage)
                write_json(path, {"examples": replays})
            for done in part:
                shares.append(_row(context.stage, done))


def _row(stage: str, done: Completion) -> dict[str, Any]:
    return {
        "stage": stage,
        "step": 0,
        "id": done.record.id,
        "task": done.record.task,
        "prompt": done.prompt,
        "completion": done.text,
        "reward": next(iter(done.scores.values())),
        "scores": done.scores,
        **({"undecided": True} if done.undecided else {}),
        "fields": done.record.fields,
    }


def baseline_scores(task: str, records: Sequence[Record]) -> dict[str, dict[str, object]]:
    """Scores of model-free policies on the same records, by name."""
    policies: dict[str, Callable[[Record], str]] = BASELINES.get(task, {})
    fields = [record.fields for record in records]
    entries = {}
    for name, policy in policies.items():
        scored = score_completions(task, [policy(record) for record in records], fields)
        entries[name] = summarize([each.scores for each in scored])
    return entries
