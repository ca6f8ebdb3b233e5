"""Supervised fine-tuning on reasoning traces: sft, weft and the other rates."""

from pathlib import Path

from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from stages.context import Context, common_arguments, train
from weft_rl.data.tiny_world import cold_start_traces
from weft_rl.data.traces import Example, Trace, encode_traces, read_traces
from weft_rl.errors import UserError
from weft_rl.models.loading import load_tokenizer, with_lora
from weft_rl.trainers.cold_start import AnswerCollator, ColdStartTrainer
from weft_rl.trainers.estimates import multiplies_bf16
from weft_rl.trainers.objectives import objective_of


def load_traces(context: Context) -> list[Trace]:
    """The records of `data=`. Raises UserError naming file and line."""
    config = context.config
    if config.data == "tiny":
        return cold_start_traces(config.cold_start.records, config.seed)
    return read_traces(Path(config.data))


def run(context: Context) -> Path:
    """Fine-tune from `context.start`; returns the last checkpoint."""
    config, options = context.config, context.config.cold_start
    tokenizer = load_tokenizer(context.start)
    model = context.model()
    end = model.config.end_token_ids[-1]
    examples, dropped = encode_traces(
        load_traces(context), tokenizer, config.prompt_style, end, options.max_length
    )
    if not examples:
        raise UserError(
            f"data={config.data}: all {dropped} records exceed "
            f"cold_start.max_length={options.max_length} tokens; raise it"
        )
    Console().print(f"{context.stage}: {len(examples)} records, {dropped} too long and left out")
    trainer = _trainer(context, model, tokenizer, examples)
    last = train(trainer, context)
    if trainer.method.estimated == "entropy" and trainer.is_world_process_zero():
        path = context.run / f"token_entropy-{context.stage}.csv"
        trainer.token_table.write(path, lambda token: str(tokenizer.decode([token])))
    return last


def _trainer(
    context: Context,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
) -> ColdStartTrainer:
    config, options = context.config, context.config.cold_start
    estimate = options.estimate
    adapted = with_lora(model, options.lora, context.start, context.scratch / "step")
    return ColdStartTrainer(
        model=adapted,
        args=TrainingArguments(
            **common_arguments(context, context.config.seed),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            gradient_accumulation_steps=options.gradient_accumulation_steps,
            learning_rate=options.learning_rate,
            lr_scheduler_type="linear",
            weight_decay=options.weight_decay,
            max_grad_norm=options.max_grad_norm,
            logging_steps=options.logging_steps,
            save_steps=options.save_steps,
        ),
        train_dataset=examples,
        data_collator=AnswerCollator(int(model.config.pad_token_id)),
        processing_class=tokenizer,
        objective=objective_of(context.stage, options.normalizer, options.slope),
        seed=config.seed,
        times=options.times,
        refresh_every=estimate.refresh_every if estimate.rates == "cached" else 1,
        estimate_dropout=estimate.dropout,
        estimate_bf16=estimate.precision == "bf16"
        or (estimate.precision == "auto" and multiplies_bf16(context.device)),
        reference=context.model(estimate.reference)
        if context.stage == "rho1" and estimate.reference is not None
        else None,
    )
