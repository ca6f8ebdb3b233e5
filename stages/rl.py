"""Reinforcement learning on a task's rewards with diffu-GRPO."""

from dataclasses import replace
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel
from trl import GRPOConfig

from rewards.registry import training
from stages.context import Context, common_arguments, train
from weft_rl.data.prompts import chat_prompt, task_prompt
from weft_rl.data.records import Record, load_records
from weft_rl.data.tasks import hub_name, training_records
from weft_rl.errors import UserError
from weft_rl.hub import hub_records
from weft_rl.models.loading import load_tokenizer, with_lora
from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
from weft_rl.trainers.task_rewards import CompletionLog, trl_rewards


def prompts(context: Context) -> list[Record]:
    """The records to train on: a data set's, a file's, or as many generated ones as are used."""
    config, options = context.config, context.config.rl
    if options.data is not None:
        place = hub_name(config.task, options.data)
        if place is not None:
            return hub_records(config.task, place, "train")
        return load_records(config.task, options.data)
    rollouts = -(-options.max_steps // options.num_iterations)
    return training_records(config.task, rollouts * options.num_prompts, config.seed)


def run(context: Context) -> Path:
    """Train from `context.start`; returns the last checkpoint."""
    config, options = context.config, context.config.rl
    records = prompts(context)
    if len(records) < options.num_prompts:
        raise UserError(
            f"rl.num_prompts={options.num_prompts}: there are only {len(records)} training "
            "records; lower it"
        )
    rows = [
        {
            "prompt": chat_prompt(task_prompt(config.prompt_style, record.task, record.fields)),
            "id": record.id,
            "fields": record.fields,
        }
        for record in records
    ]
    terms = training(config.task, config.rewards)
    model = context.model()
    trainer = DiffuGRPOTrainer(
        model=with_lora(model, options.lora, context.start, context.scratch / "step"),
        reward_funcs=trl_rewards({name: term.reward for name, term in terms.items()}),
        args=_arguments(context, [term.weight for term in terms.values()]),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(context.start),
        sampler=replace(config.sampler, temperature=options.temperature),
        seed=config.seed,
        prompt_mask_probability=options.prompt_mask_probability,
        kl_coef=options.kl_coef,
        ref_model=_reference(context),
        on_rollout=CompletionLog(context.run, context.stage, config.task),
    )
    return train(trainer, context)


def _reference(context: Context) -> PreTrainedModel | None:
    """A frozen copy of the start for the KL term; with LoRA it is the adapter switched off."""
    options = context.config.rl
    if options.kl_coef == 0 or options.lora.r > 0:
        return None
    return context.model()


def _arguments(context: Context, weights: list[float]) -> GRPOConfig:
    """Our options in TRL's terms: the only place where its names appear."""
    options = context.config.rl
    rows = options.num_prompts * options.num_generations
    micro_batch = options.micro_batch_size or rows
    return GRPOConfig(
        **common_arguments(context, context.config.seed),
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=options.warmup_steps,
        adam_beta1=0.9,
        adam_beta2=0.99,  # with 0.9, d1's
        # on a tiny model Adam's usual 1e-8 turns rounding noise into full-size steps
        adam_epsilon=1e-5,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        per_device_train_batch_size=micro_batch,
        # every optimizer step takes in the whole rollout
        gradient_accumulation_steps=rows // micro_batch,
        steps_per_generation=rows // micro_batch,
        num_generations=options.num_generations,
        reward_weights=weights,
        num_iterations=options.num_iterations,
        max_completion_length=context.config.sampler.gen_length,
        epsilon=options.clip_coef,
        beta=0.0,  # the trainer sets the KL weight itself
        loss_type=options.objective,
        scale_rewards="none",  # d1 subtracts the group's mean and does not divide
        use_bias_correction_kl=False,
        disable_dropout=True,
        logging_steps=options.logging_steps,
        save_steps=options.save_steps,
    )
