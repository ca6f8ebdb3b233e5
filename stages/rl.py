"""Reinforcement learning on a task's rewards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel

from weft_rl.config.fields import require
from weft_rl.config.schema import RunConfig
from weft_rl.data.prompts import PromptFormat
from weft_rl.data.records import Record
from weft_rl.data.rejects import Rejects
from weft_rl.data.tasks import (
    held_out_records,
    load_records,
    task_chat,
    training_records,
)
from weft_rl.data.text import task_prompt_ids
from weft_rl.distributed import rank_and_world
from weft_rl.evaluation.generate import sample_completions, summarize
from weft_rl.evaluation.settings import evaluation_settings
from weft_rl.models.loading import load_tokenizer
from weft_rl.models.memory import check_length
from weft_rl.rewards.registry import training
from weft_rl.stages import evaluate
from weft_rl.stages.context import (
    ModelFiles,
    StageContext,
    common_arguments,
    count_tokens,
    print_rejects,
    train,
)
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.fsdp import gathered_model
from weft_rl.trainers.grpo_config import DiffuGRPOConfig
from weft_rl.trainers.infra.callbacks import HeldOutEval, TrainingAlarms
from weft_rl.trainers.infra.completion_log import CompletionLog
from weft_rl.trainers.infra.resumable_trainers import ResumableRL
from weft_rl.trainers.reward_adapter import trl_rewards


def prompts(config: RunConfig, rejects: Rejects) -> list[Record]:
    """Training records: of a data set, of a file, or as many generated ones as the run uses."""
    options = config.rl
    data = options.rollout.data
    if data is not None:
        return load_records(config.task, data, rejects, split="train")
    rollouts = -(-options.max_steps // options.num_iterations)
    return training_records(config.task, rollouts * options.num_prompts, config.seed)


def rows_of(config: RunConfig, files: ModelFiles, rejects: Rejects) -> list[dict[str, Any]]:
    """The trainer's rows: prompt, id, fields. Raises UserError for too few or too long prompts."""
    options, records, wording = config.rl, prompts(config, rejects), _wording(config)
    lengths, length = prompt_lengths(config, files, records), config.sampler.gen_length
    fix = "generate fewer tokens, or drop such records"
    check_length(files.network, lengths, length, f"sampler.gen_length={length}", fix)
    rule = f"a rollout has as many prompts, and there are {len(records)} training records"
    fits = len(records) >= options.num_prompts
    require(fits, "rl.num_prompts", options.num_prompts, f"{rule}; use {len(records)}")
    return [
        {
            "prompt": task_chat(wording, record),
            "id": record.id,
            "fields": record.fields,
        }
        for record in records
    ]


def prompt_lengths(
    config: RunConfig, files: ModelFiles, records: Sequence[Record]
) -> dict[str, int]:
    """Return the number of tokens of each record's prompt by id."""
    ids = task_prompt_ids(files.tokenizer, _wording(config), records)
    return {record.id: len(prompt) for record, prompt in zip(records, ids, strict=True)}


def describe(config: RunConfig, files: ModelFiles) -> tuple[str, int]:
    """Describe the training prompts and rollouts; also return the longest prompt's length."""
    options, records = config.rl, prompts(config, _rejects(config))
    lengths = [*prompt_lengths(config, files, records).values()]
    rollouts = -(-options.max_steps // options.num_iterations)
    completions = f"{options.num_prompts} x {options.num_generations} completions"
    return f"{count_tokens('prompts', lengths)}; {rollouts} rollouts of {completions}", max(lengths)


def _wording(config: RunConfig) -> PromptFormat:
    return PromptFormat(config.prompt_style, config.prompt_template, config.system)


def _rejects(config: RunConfig) -> Rejects:
    return Rejects(config.rl.rollout.bad_records, "rl.rollout.bad_records")


def check(config: RunConfig, files: ModelFiles) -> None:
    """Raise UserError for what the stage would refuse."""
    rows_of(config, files, _rejects(config))
    config.rl.micro_batch(rank_and_world()[1])
    if config.rl.watch.evaluate_steps is not None:
        watched = replace(config.eval, num_records=config.rl.watch.evaluate_records)
        evaluate.check(replace(config, eval=watched), files)


def run(context: StageContext) -> Path:
    """Train from `context.init_checkpoint`; returns the last checkpoint."""
    config, options = context.config, context.config.rl
    terms = training(config.task, config.rewards)
    weights = options.rollout.reward_weights or [term.weight for term in terms.values()]
    model = context.model()
    tokenizer = load_tokenizer(context.init_checkpoint)
    rejects = _rejects(config)
    rows = rows_of(config, ModelFiles(tokenizer, model.config), rejects)
    print_rejects(f"rl.rollout.data={options.rollout.data}: {len(rows)} records", rejects)
    trainer = ResumableRL(
        model=context.adapted(model, options.lora),
        reward_funcs=trl_rewards(
            {name: term.reward for name, term in terms.items()},
            {name for name, term in terms.items() if term.bounded},
        ),
        args=_arguments(context, weights),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        ref_model=_reference(context),
        on_rollout=CompletionLog(context.run, context.stage, config.task),
        **context.trainer_arguments(),
    )
    trainer.add_callback(TrainingAlarms(context.stage))
    if options.watch.evaluate_steps is not None:
        score = _held_out_score(context, trainer)
        every = options.watch.evaluate_steps
        trainer.add_callback(HeldOutEval(context.run, context.stage, every, score))
    return train(trainer, context)


def _held_out_score(
    context: StageContext, trainer: DiffuGRPOTrainer
) -> Callable[[], Mapping[str, float]]:
    """Score and interval on the first held-out records, shared by all processes."""
    config, watch = context.config, context.config.rl.watch
    settings = evaluation_settings(config)
    rejects = Rejects(config.eval.bad_records, "eval.bad_records")
    records = held_out_records(config.task, watch.evaluate_records, settings.data, rejects)
    rank, processes = rank_and_world()

    def score() -> Mapping[str, float]:
        with gathered_model(trainer) as model:
            batches = sample_completions(
                model,
                trainer.processing_class,
                records[rank::processes],
                settings,
                batch_size=config.eval.batch_size,
                seed=config.seed,
            )
            scores = [done.scores for batch in batches for done in batch]
        entry = summarize(gather_object(scores))
        low, high = entry["ci95"]
        row = {"score": entry["score"], "low": low, "high": high, "n": entry["n"]}
        return {f"held_out/{name}": value for name, value in row.items()}

    return score


def _reference(context: StageContext) -> PreTrainedModel | None:
    """A frozen init checkpoint for the KL term; with LoRA the adapter is disabled instead."""
    options = context.config.rl
    if options.kl_coef == 0 or options.lora.r > 0:
        return None
    return context.model()


def _arguments(context: StageContext, weights: list[float]) -> DiffuGRPOConfig:
    options = context.config.rl
    rows, (_, processes) = options.num_prompts * options.num_generations, rank_and_world()
    size = options.micro_batch(processes)
    return DiffuGRPOConfig(
        **DiffuGRPOConfig.method_arguments(options),
        **common_arguments(context, context.config.seed),
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=options.optimizer.warmup_steps,
        adam_beta1=0.9,
        adam_beta2=0.99,  # with 0.9, d1's
        adam_epsilon=options.optimizer.adam_epsilon,
        weight_decay=options.optimizer.weight_decay,
        max_grad_norm=options.optimizer.max_grad_norm,
        per_device_train_batch_size=size,
        # every optimizer step uses the whole rollout
        gradient_accumulation_steps=rows // (size * processes),
        reward_weights=weights,
        sampler=context.config.sampler,
        logging_steps=options.watch.logging_steps,
        save_steps=options.save_steps,
    )
