"""Pretraining of the tiny model, cached per configuration."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from weft_rl.config.overrides import options_of
from weft_rl.config.schema import BaseConfig, RunConfig
from weft_rl.data.prompts import chat_prompt
from weft_rl.data.sft_examples import Example, Examples
from weft_rl.data.text import TextEncoder
from weft_rl.data.toy import pretraining_texts
from weft_rl.distributed import rank_and_world, wait_until
from weft_rl.errors import Interrupted, UserError
from weft_rl.models.loading import fresh_model
from weft_rl.models.memory import check_length
from weft_rl.models.toy import tiny_config, tiny_tokenizer
from weft_rl.runs.folder import checkpoint_path
from weft_rl.stages.context import ModelFiles, StageContext, common_arguments, train
from weft_rl.stages.model_cache import cache_path, restore, store
from weft_rl.trainers.cold_start_config import ColdStartConfig
from weft_rl.trainers.infra.resumable_trainers import ResumableColdStart

_tokenizer = cache(tiny_tokenizer)

# Texts in the cache key: the first few reveal a change of the generator.
_KEY_TEXTS = 64
# Launcher variables that a single-process child must not inherit.
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
_LAUNCHER += ("ACCELERATE_USE_", "FSDP_", "PMI_", "OMPI_")
# The child's run directory is removed: no report.
_WITHOUT_REPORT = """
import sys
from functools import partial
from weft_rl.cli import execute
from weft_rl.pipeline.run import main
sys.exit(execute("weft_rl.pipeline", partial(main, report=False), sys.argv[1:]))
"""
_PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h


def cache_folder(context: StageContext) -> Path:
    """Cache folder of this configuration's base model, which may not exist yet."""
    options = context.config.base
    content = {
        # save_steps does not affect the weights
        "base": {key: value for key, value in asdict(options).items() if key != "save_steps"},
        "network": tiny_config(options).to_dict(),
        "texts": pretraining_texts(_KEY_TEXTS, options.seed),
        "canvas": context.config.sampler.gen_length,
    }
    return cache_path("base", context, content)


def run(context: StageContext) -> Path:
    """Return the checkpoint of the base model, trained by rank 0 or copied from the cache."""
    rank, processes = rank_and_world()
    if rank:
        final = checkpoint_path(context.run, context.stage, context.config.base.max_steps)
        wait_until(final.exists)
        return final
    cached = cache_folder(context)
    if not cached.exists():
        if processes > 1:
            _pretrain_in_child(context)
        else:
            store(_pretrain(context), context, cached)
    return restore(cached, context)


def toy_files(config: RunConfig) -> ModelFiles:
    """Tokenizer and network configuration of stage `base`."""
    return ModelFiles(_tokenizer(), tiny_config(config.base))


def check(config: RunConfig, files: ModelFiles) -> None:
    """Raise UserError for what the stage would reject."""
    if not cache_folder(StageContext(config, Path(), "base", "")).exists():
        _examples(config.base, config.sampler.gen_length)


@lru_cache(maxsize=1)
def _examples(options: BaseConfig, canvas: int) -> Examples:
    network: Any = tiny_config(options)
    encoder, end, pad = TextEncoder(_tokenizer()), network.eot_token_id, network.eos_token_id
    prompts, texts = zip(*pretraining_texts(options.examples, options.seed), strict=True)
    chats, answers = encoder.chats(map(chat_prompt, prompts)), encoder.texts(texts)
    lengths = {str(index): len(ids) for index, ids in enumerate(chats)}
    key = f"sampler.gen_length={canvas}"
    check_length(network, lengths, canvas, key, "pretrain on less")
    longest = 1 + max(map(len, answers))
    if longest > canvas:
        raise UserError(f"{key}: too short to pretrain on; an answer has {longest} tokens")
    return Examples(
        Example(index, [*ids, *answer, end, *[pad] * (canvas - len(answer) - 1)], len(ids))
        for index, (ids, answer) in enumerate(zip(chats, answers, strict=True))
    )


def _pretrain(context: StageContext) -> Path:
    options = context.config.base
    model = fresh_model(tiny_config(options), options.seed)
    trainer = ResumableColdStart(
        model=model,
        args=ColdStartConfig(
            **common_arguments(context, options.seed),
            max_steps=options.max_steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=options.warmup_steps,
            weight_decay=0.01,
            logging_steps=options.logging_steps,
            save_steps=options.save_steps,
            recipe="sft",
        ),
        train_dataset=_examples(options, context.config.sampler.gen_length),
        processing_class=_tokenizer(),
        **context.trainer_arguments(),
    )
    return train(trainer, context)


def _pretrain_in_child(context: StageContext) -> None:
    """Fill the cache in a single-process child that runs stage base with the same options."""
    folder, options = context.run / ".base", options_of(asdict(context.config))
    command = [sys.executable, "-c", _WITHOUT_REPORT]
    command += [word for word in options if not word.startswith("eval.")]
    command += ["stages=[base]", "eval.after_each=false", f"out={folder}"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER)}
    # a separate process group: our signal handler forwards signals once
    child = subprocess.Popen(command, env=env, process_group=0, preexec_fn=_die_with_parent)
    try:
        child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    if child.returncode == 2:
        raise UserError(f"model={context.config.model}: its base cannot be pretrained; see above")
    if child.returncode:
        raise Interrupted(f"pretraining the base ended with status {child.returncode}")
    shutil.rmtree(folder)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
