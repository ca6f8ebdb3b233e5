"""Held-out records of a training stage, and its bound on their negative log-likelihood (NELBO)."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from weft_rl.data.sft_examples import Example
from weft_rl.diffusion.tensor_checks import IGNORED
from weft_rl.evaluation.likelihood import unigram_entropy
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.folder import EVAL, METRICS, NELBO, read_results
from weft_rl.runs.jsonl import read_lines
from weft_rl.seeding import seed_for
from weft_rl.stages.context import StageContext
from weft_rl.trainers.infra.callbacks import HeldOutEval
from weft_rl.trainers.infra.resumable_trainers import ResumableColdStart

AnyExample = TypeVar("AnyExample", bound=Example)


def split(
    examples: Sequence[AnyExample], count: int, seed: int
) -> tuple[list[AnyExample], list[AnyExample]]:
    """Return training and `count` held-out examples in order, without common token ids.

    The draw depends on the seed and the places of the examples only."""
    drawn = sorted(range(len(examples)), key=lambda i: seed_for(seed, "held-out", i))[:count]
    held_out = [examples[i] for i in sorted(drawn)]
    known = {tuple(example.ids) for example in held_out}
    return [example for example in examples if tuple(example.ids) not in known], held_out


def watch_nelbo(
    trainer: ResumableColdStart,
    context: StageContext,
    held_out: Sequence[Example],
    every: int | None = None,
) -> None:
    """Log the held-out NELBO before the first step, every `every` steps and after the last one."""
    entropy = unigram_entropy(
        [[label for label in each.labels if label != IGNORED] for each in held_out]
    )

    def score() -> Mapping[str, float]:
        metrics = trainer.evaluate(held_out)
        names = ("eval_nelbo", "eval_nelbo_se")
        row = {name: metrics[name] for name in names}
        return row | {"eval_n": len(held_out), "eval_unigram_entropy": entropy}

    trainer.add_callback(HeldOutEval(context.run, context.stage, every, score, at_ends=True))


def write_nelbo(context: StageContext) -> None:
    """Write the last and the first logged NELBO and the unigram entropy to eval.json."""
    rows = [
        row
        for row in read_lines(context.run / METRICS)
        if row.get("stage") == context.stage and "eval_nelbo" in row
    ]
    if not rows:
        return
    first, last = rows[0], rows[-1]
    entry: dict[str, Any] = {
        "mean": last["eval_nelbo"],
        "se": last["eval_nelbo_se"],
        "n": last["eval_n"],
        "before": first["eval_nelbo"],
        "unigram_entropy": last["eval_unigram_entropy"],
    }
    results = read_results(context.run)
    results.setdefault(context.stage, {})[NELBO] = entry
    write_json(context.run / EVAL, results)
