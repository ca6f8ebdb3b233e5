"""A tiny RL trainer for tests, and plain twins of its model."""

from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from torch.testing import assert_close

from weft_rl.config.model import LoraConfig
from weft_rl.config.rl import RLConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import BaseConfig
from weft_rl.data.prompts import chat_prompt
from weft_rl.data.tasks import task_prompt, training_records
from weft_rl.models.loading import fresh_model, with_lora
from weft_rl.models.toy import tiny_config, tiny_tokenizer
from weft_rl.trainers.grpo_config import DiffuGRPOConfig
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING
from weft_rl.trainers.infra.resumable_trainers import ResumableRL
from weft_rl.trainers.reward_adapter import trl_rewards

G, T, ROWS = 4, 12, 8
CLIP, PROMPT_MASK = 0.2, 0.3


def small_model(seed=0, lora=False):
    size = BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = fresh_model(tiny_config(size), seed)
    if not lora:
        return model
    options = LoraConfig(r=2, targets=["q_proj", "up_proj"])
    return with_lora(model, options, "base", Path("out"), seed)


def by_length(completion, **_):
    return (len(completion) * 7919 % 101) / 100


def options(**given):
    """RL options with two prompts of G completions; nested options by block name."""
    made = RLConfig(num_prompts=ROWS // G, num_generations=G, num_iterations=1, kl_coef=0.0)
    blocks = {
        "loss": {"clip_coef": CLIP},
        "masks": {"prompt_probability": PROMPT_MASK},
        "rollout": {},
        "optimizer": {},
    }
    for key in [*given]:
        if key in blocks:
            blocks[key] |= given.pop(key)
    inner = {key: replace(getattr(made, key), **values) for key, values in blocks.items()}
    return replace(made, **inner, **given)


def dataset(count=8):
    return Dataset.from_list(
        [
            {
                "prompt": chat_prompt(task_prompt("tiny", "sudoku", record.fields)),
                "id": record.id,
                "fields": record.fields,
            }
            for record in training_records("sudoku", count, 0)
        ]
    )


def trainer(tmp_path, chosen=None, *, reward=by_length, lora=False, processes=1, run=None, **more):
    """run: run directory. more: sampler settings (sampler=...), TRL arguments."""
    chosen = chosen or options()
    assert chosen.num_prompts * chosen.num_generations == ROWS
    size = chosen.optimizer.micro_batch_size or ROWS // processes
    slices = ROWS // (size * processes)
    sampler = more.pop("sampler", SamplerConfig(T, T, 4, temperature=1.0))
    records = more.pop("records", None) or dataset()
    rewards = reward if isinstance(reward, dict) else {"by_length": reward}
    arguments = {
        "max_steps": 4,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 3,
        "use_cpu": True,
    }
    args = DiffuGRPOConfig(
        **DiffuGRPOConfig.method_arguments(chosen) | {"temperature": sampler.temperature},
        sampler=sampler,
        output_dir=str(tmp_path),
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=slices,
        **{ACTIVATION_CHECKPOINTING: False},
        **(arguments | more),
    )
    return ResumableRL(
        run=run or tmp_path,
        stage="rl",
        model=small_model(lora=lora),
        reward_funcs=trl_rewards(rewards),
        args=args,
        train_dataset=records,
        processing_class=tiny_tokenizer(),
        ref_model=small_model() if chosen.kl_coef and not lora else None,
    )


def rollout(made):
    made.model.train()
    rows = [made.train_dataset[i] for i in (0, 1) for _ in range(G)]
    return made.micro_batches(made.make_rollout(rows))


def joined(slices):
    return {
        name: torch.cat([each[name] for each in slices])
        if slices[0][name].dim() and name != "loss_tokens"
        else slices[0][name]
        for name in slices[0]
    }


def disturb(model, amount=0.05):
    """Perturb the trained weights, so that ratios and clips matter."""
    with torch.no_grad():
        for index, parameter in enumerate(trained(model)):
            generator = torch.Generator().manual_seed(100 + index)
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(amount * noise.to(parameter.device))


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def twin(made, lora=False):
    """A plain model with the trainer's current weights, without TRL's patches."""
    copy = small_model(lora=lora)
    copy.load_state_dict(made.model.state_dict())
    return copy


def step_loss(made, slices, k):
    """Loss and gradients of the k-th optimizer step, summed over micro-batches."""
    made.model.zero_grad()
    total = torch.zeros(())
    for one in slices:
        loss = made.pass_loss(made.model, one, k)
        loss.backward()
        total = total + loss.detach()
    made.record_step()
    return total, [parameter.grad for parameter in trained(made.model)]


def losses(made):
    made.train()
    return [row["loss"] for row in made.state.log_history if "loss" in row]


def state(made):
    return [parameter.detach().clone() for parameter in made.model.parameters()]


def assert_step(made, slices, k, wanted, plain):
    """Loss and gradients of a step are those of a loss by hand on a plain twin."""
    found, gradients = step_loss(made, slices, k)
    wanted.backward()
    assert_close(found, wanted.detach(), atol=1e-6, rtol=1e-5)
    assert_close(gradients, [each.grad for each in trained(plain)], atol=1e-6, rtol=1e-4)
