"""Adaptation of an autoregressive model to masked diffusion; cached per configuration.

The model is trained on with the NELBO (recipe sft) and full attention. Source: dllm
(ZHZisZZ/dllm), its a2d pipeline."""

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerState

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.config.a2d import A2D_EVAL_DRAWS
from weft_rl.config.fields import argument, require
from weft_rl.config.schema import RunConfig
from weft_rl.data.self_prompts import self_prompts
from weft_rl.data.sft_examples import Example
from weft_rl.distributed import rank_and_world, wait_until
from weft_rl.errors import UserError
from weft_rl.families import family_of, read_config
from weft_rl.families.a2d import A2D, is_autoregressive
from weft_rl.io.terminal import Console
from weft_rl.models.loading import load_autoregressive
from weft_rl.runs.folder import checkpoint_path
from weft_rl.seeding import seed_for
from weft_rl.stages.a2d_data import SELF, AdaptationData, answered, prepare, read_records
from weft_rl.stages.context import (
    ModelFiles,
    StageContext,
    agreed,
    common_arguments,
    model_files,
    train,
)
from weft_rl.stages.held_out import watch_nelbo, write_nelbo
from weft_rl.stages.model_cache import cache_path, identity, restore, store
from weft_rl.stages.self_answers import remove_answers, self_written
from weft_rl.trainers.cold_start_config import ColdStartConfig
from weft_rl.trainers.infra.resumable_trainers import ResumableColdStart


class AttentionAnnealing(TrainerCallback):
    """Lets positions attend to a growing random share of the later ones, and at last to all.

    steps: until full attention; the share is linear in the step. The positions depend on (seed,
    step) only. Evaluations use full attention. Source: DiffuLLaMA (arXiv 2410.17891)."""

    def __init__(self, network: Any, steps: int, seed: int) -> None:
        self.network, self.steps, self.seed = network, steps, seed

    def pattern(self, step: int, length: int) -> Tensor:
        """Positions (columns) that each position (row) attends to, before step `step` + 1."""
        generator = torch.Generator().manual_seed(seed_for(self.seed, "annealing", step))
        later = torch.rand(length, length, generator=generator) < step / self.steps
        return later | torch.ones(length, length, dtype=torch.bool).tril()

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Set the pattern of the step."""
        step = state.global_step
        if step < self.steps:
            self.network.attention_pattern = lambda length, device: self.pattern(step, length).to(
                device
            )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Return to full attention."""
        self.network.attention_pattern = None


def adapted_files(config: RunConfig, place: str) -> ModelFiles:
    """Tokenizer and configuration of the adapted model. Raises UserError if it is none."""
    folder = resolve_checkpoint(place, weights=False)
    family, _ = family_of(read_config(folder, adapt=True), folder)
    if family not in A2D:
        raise UserError(
            f"model={config.model}: is a {family.name} diffusion model, not an autoregressive one; "
            "leave a2d out of stages"
        )
    content = read_config(folder)
    if not is_autoregressive(content):  # adapted already
        rule = (
            f"model={config.model} is adapted already and cannot write; name a file of chats or "
            "texts, or leave a2d out of stages"
        )
        require(config.a2d.data != SELF, "a2d.data", SELF, rule)
        shift = content.get("logit_shift", False)
        rule = f"model={config.model} is adapted with {argument(shift)}; use that"
        require(config.a2d.logit_shift == shift, "a2d.logit_shift", config.a2d.logit_shift, rule)
    return model_files(place, adapt=True)


def check(config: RunConfig, files: ModelFiles) -> None:
    """Raise UserError for what the stage would reject."""
    records, lines = read_records(config, files)
    if config.a2d.data != SELF:
        prepare(config, records, lines)
        return
    # before the model answers
    limit = config.a2d.records + len(records)
    rule = f"there are at most {limit} records; use fewer than {limit}, or raise a2d.records"
    require(config.a2d.eval_records < limit, "a2d.eval_records", config.a2d.eval_records, rule)


def describe(config: RunConfig, files: ModelFiles) -> list[str]:
    """Describe the data of the stage. Raises UserError as check."""
    records, lines = read_records(config, files)
    if config.a2d.data != SELF:
        return prepare(config, records, lines).lines
    own = f"the model answers {config.a2d.records} prompts"
    return [f"{own}; {len(records)} records of data={config.data}", *lines]


def run(context: StageContext) -> Path:
    """Adapt `context.init_checkpoint`, or copy the result from the cache; return the checkpoint."""
    config, rank = context.config, rank_and_world()[0]
    folder = resolve_checkpoint(context.init_checkpoint)
    files = adapted_files(config, context.init_checkpoint)
    records, lines = read_records(config, files)
    cached = _cache_folder(context, folder, records)
    is_cached = agreed(context, rank == 0 and cached.exists())
    final = checkpoint_path(context.run, context.stage, config.a2d.max_steps)
    if not is_cached:
        if config.a2d.data == SELF:
            more, about = answered(config, files, self_written(context, folder, files))
            records, lines = [*more, *records], [*about, *lines]
        _adapt(context, prepare(config, records, lines))
        if rank == 0:
            store(final, context, cached)
    elif rank == 0:
        restore(cached, context)
    if rank == 0:
        remove_answers(context)
        write_nelbo(context)
    wait_until(final.exists)
    return final


def _cache_folder(context: StageContext, folder: Path, records: Sequence[Example]) -> Path:
    options = context.config.a2d
    digest = blake2b(digest_size=8)
    for record in records:
        digest.update(repr((record.prompt_length, record.ids)).encode())
    neutral = ("save_steps", "logging_steps")
    content = {
        "a2d": {key: value for key, value in asdict(options).items() if key not in neutral},
        "model": identity(folder),
        "records": digest.hexdigest(),
        "prompts": self_prompts(options.records, options.seed) if options.data == SELF else [],
        "system": context.config.system,
        "processes": rank_and_world()[1],
    }
    return cache_path("a2d", context, content)


def _adapt(context: StageContext, data: AdaptationData) -> None:
    options = context.config.a2d
    first, *more = data.lines
    if rank_and_world()[0] == 0:
        Console().print("\n".join([f"{context.stage}: {first}", *more]), soft_wrap=True)
    model, tokenizer = load_autoregressive(
        context.init_checkpoint, context.device, logit_shift=options.logit_shift
    )
    trainer = ResumableColdStart(
        model=model,
        args=ColdStartConfig(
            **common_arguments(context, options.seed),
            max_steps=options.max_steps,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=options.batch_size,
            gradient_accumulation_steps=options.gradient_accumulation_steps,
            learning_rate=options.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=options.warmup_steps,
            logging_steps=options.logging_steps,
            save_steps=options.save_steps,
            recipe="sft",
            eval_mc_samples=A2D_EVAL_DRAWS,
        ),
        train_dataset=data.train,
        processing_class=tokenizer,
        **context.trainer_arguments(),
    )
    if options.anneal_steps:  # before the evaluation, which uses full attention
        trainer.add_callback(AttentionAnnealing(model, options.anneal_steps, options.seed))
    watch_nelbo(trainer, context, data.held_out, options.eval_every)
    train(trainer, context)
