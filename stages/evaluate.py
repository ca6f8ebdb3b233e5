"""Evaluation of a checkpoint on held-out records: eval.json and the completions behind it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from rewards.registry import EVALUATION
from stages.context import Context
from weft_rl.data.baselines import BASELINES
from weft_rl.data.records import Record
from weft_rl.data.tasks import held_out_records
from weft_rl.evaluation import Completion, sample_completions, summarise
from weft_rl.models.loading import load_tokenizer
from weft_rl.runs import EVAL, append_line, read_json, write_json


def run(context: Context) -> dict[str, Any]:
    """Score `context.start` under the name of the stage; returns the content of eval.json.

    A second call for the same stage replaces what the first one wrote."""
    config, options = context.config, context.config.eval
    records = held_out_records(config.task, options.num_records, options.data)
    model = context.model()
    completions = sample_completions(
        model,
        load_tokenizer(context.start),
        records,
        config.prompt_style,
        config.sampler,
        batch_size=options.batch_size,
        seed=config.seed,
    )
    shown = track(completions, f"{context.stage}: evaluation", len(records), transient=True)
    done = list(shown)
    entry = summarise([completion.scores for completion in done])
    entry["baselines"] = baseline_scores(config.task, records)
    _write_completions(context, done)
    results = read_json(context.run / EVAL, {})
    results.setdefault(context.stage, {})[config.task] = entry
    write_json(context.run / EVAL, results)
    return results


def baseline_scores(task: str, records: Sequence[Record]) -> dict[str, dict[str, object]]:
    """What policies without a model score on the same records, by name."""
    policies: dict[str, Callable[[Record], str]] = BASELINES.get(task, {})
    functions = EVALUATION[task]
    return {
        name: summarise(
            [
                {score: f(policy(record), **record.fields) for score, f in functions.items()}
                for record in records
            ]
        )
        for name, policy in policies.items()
    }


def _write_completions(context: Context, completions: Sequence[Completion]) -> None:
    path: Path = context.run / "completions" / f"eval-{context.stage}.jsonl"
    path.unlink(missing_ok=True)
    for completion in completions:
        first = next(iter(completion.scores.values()))
        append_line(
            path,
            {
                "stage": context.stage,
                "step": 0,
                "id": completion.record.id,
                "task": completion.record.task,
                "prompt": completion.prompt,
                "completion": completion.text,
                "reward": first,
                "scores": completion.scores,
                "fields": completion.record.fields,
            },
        )
