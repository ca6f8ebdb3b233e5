"""Reinforcement learning on a task's rewards."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel
from trl import GRPOConfig

from rewards.registry import training
from stages.context import Context, common_arguments, train
from weft_rl.data.held_out import evaluation_settings
from weft_rl.data.prompts import chat_prompt, task_prompt
from weft_rl.data.records import Record, load_records
from weft_rl.data.tasks import held_out_records, hub_name, training_records
from weft_rl.data.traces import prompt_ids
from weft_rl.evaluation import sample_completions, summarise
from weft_rl.hub import hub_records
from weft_rl.models.checks import require_room
from weft_rl.models.loading import load_tokenizer
from weft_rl.shares import rank_and_world
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.sharded import whole_weights
from weft_rl.trainers.task_rewards import CompletionLog, trl_rewards
from weft_rl.trainers.watch import Alarms, HeldOut


def prompts(context: Context) -> list[Record]:
    """The records to train on: a data set's, a file's, or as many generated ones as are used."""
    config, options = context.config, context.config.rl
    data = options.rollout.data
    if data is not None:
        place = hub_name(config.task, data)
        if place is not None:
            return hub_records(config.task, place, "train")
        return load_records(config.task, data)
    rollouts = -(-options.max_steps // options.num_iterations)
    return training_records(config.task, rollouts * options.num_prompts, config.seed)


def run(context: Context) -> Path:
    """Train from `context.start`; returns the last checkpoint."""
    config, options = context.config, context.config.rl
    terms = training(config.task, config.rewards)
    weights = options.rollout.reward_weights or [term.weight for term in terms.values()]
    records = prompts(context)
    texts = [task_prompt(config.prompt_style, record.task, record.fields) for record in records]
    rows = [
        {"prompt": chat_prompt(text), "id": record.id, "fields": record.fields}
        for record, text in zip(records, texts, strict=True)
    ]
    model = context.model()
    tokenizer = load_tokenizer(context.start)
    lengths = {
        record.id: len(prompt_ids(tokenizer, text))
        for record, text in zip(records, texts, strict=True)
    }
    length = config.sampler.gen_length
    cure = "generate less, or leave such records out"
    require_room(model.config, lengths, length, f"sampler.gen_length={length}", cure)
    trainer = DiffuGRPOTrainer(
        model=context.adapted(model, options.lora),
        reward_funcs=trl_rewards(
            {name: term.reward for name, term in terms.items()},
            {name for name, term in terms.items() if term.bounded},
        ),
        args=_arguments(context, weights),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        sampler=replace(
            config.sampler,
            temperature=options.rollout.temperature,
            trace=options.estimator == "trace",
        ),
        seed=config.seed,
        options=options,
        ref_model=_reference(context),
        on_rollout=CompletionLog(context.run, context.stage, config.task),
    )
    trainer.add_callback(Alarms(context.stage))
    if options.watch.evaluate_steps is not None:
        score = _held_out_score(context, trainer)
        every = options.watch.evaluate_steps
        trainer.add_callback(HeldOut(context.run, context.stage, every, score))
    return train(trainer, context)


def _held_out_score(
    context: Context, trainer: DiffuGRPOTrainer
) -> Callable[[], Mapping[str, float]]:
    """Score and interval on the first held-out records, each process doing its share of them."""
    config, watch = context.config, context.config.rl.watch
    settings = evaluation_settings(config)
    records = held_out_records(config.task, watch.evaluate_records, settings.data)
    rank, processes = rank_and_world()

    def score() -> Mapping[str, float]:
        with whole_weights(trainer) as model:
            batches = sample_completions(
                model,
                trainer.processing_class,
                records[rank::processes],
                settings,
                batch_size=config.eval.batch_size,
                seed=config.seed,
            )
            scores = [done.scores for batch in batches for done in batch]
        entry = summarise(gather_object(scores))
        low, high = entry["ci95"]
        return {"score": entry["score"], "low": low, "high": high, "n": entry["n"]}

    return score


def _reference(context: Context) -> PreTrainedModel | None:
    """A frozen copy of the start for the KL term; with LoRA it is the adapter switched off."""
    options = context.config.rl
    if options.kl_coef == 0 or options.lora.r > 0:
        return None
    return context.model()


def _arguments(context: Context, weights: list[float]) -> GRPOConfig:
    """Our options in TRL's terms: the only place where its names appear."""
    options = context.config.rl
    rows, (_, processes) = options.num_prompts * options.num_generations, rank_and_world()
    size = options.micro_batch(processes)
    return GRPOConfig(
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
        # every optimizer step takes in the whole rollout
        gradient_accumulation_steps=rows // (size * processes),
        steps_per_generation=rows // (size * processes),
        num_generations=options.num_generations,
        reward_weights=weights,
        num_iterations=options.num_iterations,
        max_completion_length=context.config.sampler.gen_length,
        beta=0.0,  # reference and loss are the trainer's own
        scale_rewards="none",  # less the group's mean; the trainer makes other baselines of it
        disable_dropout=True,  # the model's own as well: the first pass has a ratio of 1
        logging_steps=options.watch.logging_steps,
        save_steps=options.save_steps,
    )
