"""Answers that an autoregressive model writes to built-in prompts, to adapt it on its own text."""

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from weft_rl.data.prompts import chat_prompt
from weft_rl.data.self_prompts import self_prompts
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.data.trace_schemas import Trace
from weft_rl.distributed import rank_and_world
from weft_rl.evaluation.results_store import ShardedResults
from weft_rl.io.log_lines import LogLines
from weft_rl.io.terminal import Console
from weft_rl.models.memory import require_memory
from weft_rl.models.tokenizer import foreign_files
from weft_rl.runs.atomic_io import write_text
from weft_rl.runs.checksums import verify_weights
from weft_rl.runs.jsonl import read_lines
from weft_rl.sampler.prompts import pad_left
from weft_rl.seeding import seed_for
from weft_rl.stages.context import ModelFiles, StageContext, agreed
from weft_rl.stages.model_cache import cache_path, identity

# Prompts per batch: a KV cache of some 200 MB for SmolLM2-135M, and few batches.
_BATCH = 32
# Qwen's and other chat models' usual values; 1.0 derails small models.
_TEMPERATURE, _TOP_P = 0.7, 0.9
_SHARDS = "answers"


def self_written(context: StageContext, folder: Path, files: ModelFiles) -> list[Trace]:
    """Return prompts with the answers of the autoregressive model in `folder`; cached.

    Processes share the prompts, and the run directory: batches are kept there across
    interruptions. Only rank 0 uses the cache. An answer without an end token is left out."""
    options, (rank, world) = context.config.a2d, rank_and_world()
    prompts = self_prompts(options.records, options.seed)
    content = {
        "model": identity(folder),
        "prompts": prompts,
        "system": context.config.system,
        "sampling": [_BATCH, _TEMPERATURE, _TOP_P, options.max_new_tokens, options.seed],
        "processes": world,
    }
    cached = cache_path("answers", context, content).with_suffix(".jsonl")
    name, rows = agreed(context, (cached.name, [*read_lines(cached)] if rank == 0 else []))
    if len(rows) < len(prompts):
        ids = [str(index) for index in range(len(prompts))]
        shares = ShardedResults(context.run, _SHARDS, {"cached": name}, rank, world)
        if left := shares.pending(ids, _BATCH):
            shares.open()
            _answer(context, folder, files, prompts, left, shares)
        rows = shares.gather(ids)
        if rank == 0:
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_text(cached, "".join(f"{json.dumps(row)}\n" for row in rows))
    return [
        Trace(prompts[int(row["id"])], None, row["answer"], f"self:{row['id']}")
        for row in rows
        if row["answer"] is not None
    ]


def remove_answers(context: StageContext) -> None:
    """Remove the batches of answers from the run directory, once all processes have read them."""
    ShardedResults(context.run, _SHARDS, {}).remove()


def _answer(
    context: StageContext,
    folder: Path,
    files: ModelFiles,
    prompts: Sequence[str],
    left: Sequence[str],
    shares: ShardedResults,
) -> None:
    options = context.config.a2d
    model = _load(context, folder)
    chats = [chat_prompt(prompts[int(id)], system=context.config.system) for id in left]
    encoded = TextEncoder(files.tokenizer).chats(chats)
    label, console = f"{context.stage}: the model answers prompts", Console(stderr=True)
    log = None if console.is_terminal or shares.rank else LogLines(label)
    batches = range(0, len(left), _BATCH)
    shown = track(batches, label, console=console, transient=True, disable=log is not None)
    for begin in shown if shares.rank == 0 else batches:
        batch = left[begin : begin + _BATCH]
        seed = seed_for(options.seed, "answers", batch[0])
        answers = sample_answers(
            model,
            files.tokenizer,
            encoded[begin : begin + _BATCH],
            ends=files.network.end_token_ids,
            max_new_tokens=options.max_new_tokens,
            seed=seed,
        )
        for id, answer in zip(batch, answers, strict=True):
            shares.append({"id": id, "prompt": prompts[int(id)], "answer": answer})
        if log is not None:
            done = begin + len(batch)
            log.update(done / len(left), f"{done} of {len(left)}")
    del model
    gc.collect()
    torch.cuda.empty_cache()


def _load(context: StageContext, folder: Path) -> Any:
    """Raise UserError also for what the adaptation would reject after the answers."""
    verify_weights(folder)
    require_memory(folder, torch.float32, context.device)
    dtype = torch.bfloat16 if context.device.type == "cuda" else torch.float32
    with foreign_files(f"model={context.init_checkpoint}: cannot load the model"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
    return model.to(context.device).eval()


@torch.no_grad()
def sample_answers(
    model: Any,  # with transformers' generate
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    max_new_tokens: int,
    seed: int,
) -> list[str | None]:
    """Return the model's answer to each encoded prompt; None if it is empty or has no end token."""
    input_ids, attention_mask = pad_left(prompts, tokenizer, model.device)
    # transformers samples from the global random state, which is restored
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sampling = GenerationConfig(
            do_sample=True,
            temperature=_TEMPERATURE,
            top_p=_TOP_P,
            max_new_tokens=max_new_tokens,
            eos_token_id=[*ends],
            pad_token_id=ends[0],
        )
        output = model.generate(
            input_ids, attention_mask=attention_mask, generation_config=sampling
        )
    answers: list[str | None] = []
    for ids in output[:, input_ids.shape[1] :].tolist():
        text = decode_completion(tokenizer, ids, ends).strip()
        answers.append(text if text and not set(ends).isdisjoint(ids) else None)
    return answers
