"""Supervised fine-tuning on reasoning traces with a cold-start recipe."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft_rl.config.cold_start import DataConfig
from weft_rl.config.fields import require
from weft_rl.config.schema import GENERATED_DATA, TOY_MODELS, RunConfig
from weft_rl.data.prompts import PromptFormat
from weft_rl.data.rejects import Rejects
from weft_rl.data.sft_examples import Example, Examples, encode_traces
from weft_rl.data.sources import read_traces
from weft_rl.data.task_traces import task_traces
from weft_rl.data.text import check_wording, token_text
from weft_rl.data.toy import cold_start_traces
from weft_rl.data.trace_schemas import Trace, turns_of, with_system
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.diffusion.tensor_checks import IGNORED
from weft_rl.distributed import rank_and_world
from weft_rl.errors import UserError
from weft_rl.io.terminal import Console
from weft_rl.models.loading import load_tokenizer
from weft_rl.runs.folder import ENTROPY_HEATMAP
from weft_rl.stages.context import (
    ModelFiles,
    StageContext,
    common_arguments,
    count_tokens,
    model_files,
    train,
)
from weft_rl.stages.held_out import split, watch_nelbo, write_nelbo
from weft_rl.trainers.cold_start_config import ColdStartConfig
from weft_rl.trainers.entropy_pass import has_bf16_matmul
from weft_rl.trainers.infra.resumable_trainers import LengthGroupedOrder, ResumableColdStart
from weft_rl.trainers.infra.token_entropy_log import HEATMAP_EXAMPLES, write_heatmap
from weft_rl.trainers.sft_dataset import end_of_turn
from weft_rl.trainers.weft_loss import masking_rates


def load_traces(config: RunConfig, reject: Rejects) -> list[Trace]:
    """Load the records of `data=`. Raises UserError with file and record."""
    count = config.cold_start.records
    if config.data in TOY_MODELS:
        return cold_start_traces(count, config.seed)
    if config.data in GENERATED_DATA:
        return task_traces(config.data, config.prompt_style, count, config.seed)
    return read_traces(config.data, config.cold_start.data, reject)


def examples_of(
    context: StageContext, tokenizer: PreTrainedTokenizerBase, model_config: PreTrainedConfig
) -> Examples:
    """Tokenized records; prints a summary. Raises UserError if none is left or one is too long."""
    examples, lines = encoded(context.config, ModelFiles(tokenizer, model_config), context.stage)
    lines[0] = f"{context.stage}: {lines[0]}"
    if rank_and_world()[0] == 0:
        Console().print("\n".join(lines), soft_wrap=True)
    return examples


def encoded(
    config: RunConfig, files: ModelFiles, label: str | None = None
) -> tuple[Examples, list[str]]:
    """Tokenized records and summary lines. label: of the progress bar; None: no bar."""
    options, console = config.cold_start.data, Console(stderr=True)
    tokenizer, model_config = files
    check_wording(tokenizer, PromptFormat(config.prompt_style, system=config.system))
    reject = Rejects(options.bad_records)
    traces = load_traces(config, reject)
    turns = traces
    if options.chat_turns == "all":
        turns = [turn for trace in traces for turn in turns_of(trace, options.think)]
    result = encode_traces(
        track(
            [with_system(trace, config.system) for trace in turns],
            f"{label}: tokenizing",
            console=console,
            transient=True,
            disable=label is None or not console.is_terminal or rank_and_world()[0] > 0,
        ),
        tokenizer,
        config.prompt_style,
        end_of_turn(tokenizer, model_config),
        options.max_length,
        options.truncation,
        reject,
    )
    examples, dropped = result.examples, result.dropped
    limit = f"longer than cold_start.data.max_length={options.max_length} tokens"
    if not examples:
        raise UserError(
            f"data={config.data}: no record is left, {dropped} are {limit}, "
            f"{len(reject.reasons)} cannot be used; raise the length, or check the records"
        )
    lengths = examples.lengths()
    longest = max(lengths)
    positions = model_config.max_position_embeddings
    if longest > positions:
        raise UserError(
            f"cold_start.data.max_length={options.max_length}: the model has {positions} positions "
            f"and a record takes {longest}; try {positions}"
        )
    lines = [count_tokens("records", lengths)]
    lines += _chat_lines(traces, turns, options)
    if dropped or result.cut:
        lines.append(
            f"  {limit}: {dropped} left out, {result.cut} cut ({options.truncation}), "
            f"{result.dropped_tokens} tokens dropped"
        )
    if result.without_reasoning:
        lines.append(f"    {result.without_reasoning} of them have no reasoning to cut")
    return examples, lines + reject.summary()


def without_held_out(config: RunConfig, examples: Examples) -> tuple[Examples, list[Example]]:
    """Return training and held-out examples: eval.nelbo_records of them, equal for all stages."""
    count, total = config.eval.nelbo_records, len(examples)
    if count == 0:
        return examples, []
    train, held_out = split(examples, count, config.cold_start.data.draw_seed)
    rule = f"data={config.data} gives {total} examples; hold out fewer"
    require(bool(train), "eval.nelbo_records", count, rule)
    return Examples(train), held_out


def check(config: RunConfig, files: ModelFiles) -> None:
    """Raise UserError for what the stage would reject."""
    without_held_out(config, encoded(config, files)[0])
    reference = config.cold_start.ref_model
    wanted = any(RECIPES[s].needs_reference for s in config.stages if s in RECIPES)
    if reference is not None and wanted:
        size = model_files(reference).network.vocab_size
        rule = f"has {size} tokens, and the model has {files.network.vocab_size}; name another"
        fits = size == files.network.vocab_size
        require(fits, "cold_start.ref_model", reference, rule)


def _chat_lines(traces: Sequence[Trace], turns: Sequence[Trace], options: DataConfig) -> list[str]:
    lines = []
    answers = len(traces) + sum(role == "assistant" for each in traces for role, _ in each.history)
    if any(trace.history for trace in traces):
        lines.append(
            f"  chats: {len(turns)} of {answers} answers trained on "
            f"(cold_start.data.chat_turns={options.chat_turns})"
        )
    thoughts = sum(trace.think is not None for trace in turns)
    if thoughts:
        form = "<reasoning> and <answer>" if options.think == "rewrite" else "text"
        lines.append(
            f"  answers with a <think>: {thoughts}, trained on as {form} "
            f"(cold_start.data.think={options.think})"
        )
    return lines


def run(context: StageContext) -> Path:
    """Fine-tune `context.init_checkpoint`; return the last checkpoint."""
    tokenizer = load_tokenizer(context.init_checkpoint)
    model = context.model()
    examples = examples_of(context, tokenizer, model.config)
    examples, held_out = without_held_out(context.config, examples)
    trainer = _trainer(context, model, tokenizer, examples)
    if held_out:
        watch_nelbo(trainer, context, held_out)
    last = train(trainer, context)
    if held_out and trainer.is_world_process_zero():
        write_nelbo(context)
    if trainer.recipe.statistic == "entropy":
        _write_entropies(context, trainer, tokenizer, examples)
    return last


def _write_entropies(
    context: StageContext,
    trainer: ResumableColdStart,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
) -> None:
    """Write mean token entropies (WeFT's Figure 2) and a heat map; collective."""
    spelling = partial(token_text, tokenizer)

    batch = trainer.data_collator(examples[:HEATMAP_EXAMPLES])
    batch = {name: value.to(context.device) for name, value in batch.items()}
    trainer.entropy_cache.epochs.clear()  # recompute with the trained model
    model: Any = trainer.model
    entropy = trainer.entropies(model, batch)
    table = trainer.token_table.reduced(trainer.accelerator)
    if not trainer.is_world_process_zero() or entropy is None:
        return
    table.write(context.run / f"token_entropy-{context.stage}.csv", spelling)
    if "entropy" in trainer.recipe.rates:
        x0, answer = batch["input_ids"], batch["labels"] != IGNORED
        rates = masking_rates(trainer.recipe, entropy, answer)
        path = context.run / ENTROPY_HEATMAP.format(stage=context.stage)
        write_heatmap(path, x0, answer, entropy, rates, spelling)


def _trainer(
    context: StageContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
) -> ResumableColdStart:
    config, options = context.config, context.config.cold_start
    estimate, recipe = options.entropy_pass, RECIPES[context.stage]
    args = ColdStartConfig(
        **common_arguments(context, config.seed),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        logging_steps=options.logging_steps,
        save_steps=options.save_steps,
        recipe=context.stage,
        loss_norm=options.loss_norm,
        exact_elbo=options.exact_elbo,
        t_sampling=options.t_sampling,
        entropy_refresh_epochs=estimate.refresh_every if estimate.rates == "cached" else None,
        entropy_dropout=estimate.dropout,
        entropy_bf16=estimate.precision == "bf16"
        or (estimate.precision == "auto" and has_bf16_matmul(context.device)),
        pad_in_answer=options.data.pad_in_answer,
    )
    records_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return ResumableColdStart(
        model=context.adapted(model, options.lora),
        args=args,
        train_dataset=examples,
        processing_class=tokenizer,
        order=LengthGroupedOrder(examples.lengths(), records_a_step, config.seed)
        if options.data.group_by_length
        else None,
        reference=context.model(options.ref_model)
        if recipe.needs_reference and options.ref_model is not None
        else None,
        **context.trainer_arguments(),
    )
