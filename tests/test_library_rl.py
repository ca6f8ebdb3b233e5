"""DiffuGRPOTrainer as a user's script calls it."""

from functools import partial

import pytest
import torch
from datasets import Dataset
from library import SILENT, length_reward, prompts, rl
from small_cold_start import small_model
from torch.testing import assert_close
from trl import GRPOConfig
from trl.rewards import accuracy_reward, think_format_reward

from weft_rl import (
    DiffuGRPOConfig,
    DiffuGRPOTrainer,
    SamplerConfig,
)
from weft_rl.models.toy import tiny_tokenizer


def batch_reward(completions, number, **_):
    return [len(each[0]["content"]) + n for each, n in zip(completions, number, strict=True)]


async def async_reward(completions, **_):
    return [0.5 if n % 2 else None for n in range(len(completions))]


async def async_ours(completion, number):
    return float(number)


def test_reward_functions_of_both_forms_train_together(tmp_path):
    made = DiffuGRPOTrainer(
        small_model(),
        [think_format_reward, batch_reward, length_reward, async_reward, async_ours],
        rl(tmp_path, beta=0.1, num_iterations=2),
        prompts(),
        processing_class=tiny_tokenizer(),
    )
    before = [weight.clone() for weight in made.model.parameters()]
    made.train()
    row = made.state.log_history[0]
    for name in (
        "think_format_reward", "batch_reward", "length_reward", "async_reward", "async_ours"
    ):  # fmt: skip
        assert f"rewards/{name}/mean" in row
    assert row["rewards/async_reward/mean"] == 0.5
    assert row["reward_failures"] == 0
    assert "kl" in row
    assert not all(map(torch.equal, before, made.model.parameters()))


def test_a_grpo_script_is_ported_by_two_names_and_the_sampler(tmp_path):
    """TRL's arguments and reward function, and a chat dataset with a system message."""
    arguments = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-3,
        "beta": 0.04,
        "temperature": 0.9,
        "gradient_accumulation_steps": 2,
        "max_steps": 1,
        "scale_rewards": "group",
    } | SILENT
    system, user = {"role": "system", "content": "1 2"}, {"role": "user", "content": "2 + 3"}
    rows = Dataset.from_list([{"prompt": [system, user], "solution": "$5$"}] * 8)
    tokenizer = tiny_tokenizer()
    ported = DiffuGRPOConfig(**arguments, sampler=SamplerConfig(8, 8, 4))
    trl = GRPOConfig(**arguments)
    same = [name for name in arguments if name != "output_dir"]
    assert [getattr(ported, name) for name in same] == [getattr(trl, name) for name in same]
    trainer = DiffuGRPOTrainer(
        model=small_model(),
        reward_funcs=accuracy_reward,
        args=ported,
        train_dataset=rows,
        processing_class=tokenizer,
    )
    trainer.train()
    assert "rewards/accuracy_reward/mean" in trainer.state.log_history[0]


def test_text_prompts_reach_rewards_as_texts(tmp_path):
    seen = []

    def reward(completions, prompts, **_):
        seen.extend([*completions, *prompts])
        return [0.0] * len(completions)

    rows = Dataset.from_dict({"prompt": [f"{n} + 1" for n in range(2, 6)]})
    trainer = DiffuGRPOTrainer(
        small_model(), reward, rl(tmp_path), rows, processing_class=tiny_tokenizer()
    )
    trainer.train()
    assert seen
    assert all(isinstance(each, str) for each in seen)


def test_a_failing_reward_is_counted_and_named(tmp_path):
    """One failed call of a batched function costs its rewards, three rollouts in a row the run."""
    calls = []

    def sometimes(completions, **_):
        calls.append(len(completions))
        if len(calls) % 2 or len(calls) > 4:
            raise KeyError("no such column")
        return [1.0] * len(completions)

    made = DiffuGRPOTrainer(
        small_model(),
        [length_reward, sometimes],
        rl(tmp_path, max_steps=9),
        prompts(),
        processing_class=tiny_tokenizer(),
    )
    with (
        pytest.warns(UserWarning, match="reward sometimes: raised KeyError"),
        pytest.raises(ValueError, match="reward sometimes: failed on all 4"),
    ):
        made.train()
    assert len(calls) == 7
    failures = [row["reward_failures"] for row in made.state.log_history if "reward" in row]
    assert failures[:4] == [0.5, 0.0, 0.5, 0.0]


class AsyncReward:
    """A callable object whose call is async, in TRL's form."""

    async def __call__(self, completions, **_):
        return [0.25] * len(completions)


def test_async_objects_and_partials_are_awaited(tmp_path):
    async def scaled(completions, scale, **_):
        return [scale] * len(completions)

    made = DiffuGRPOTrainer(
        small_model(),
        [AsyncReward(), partial(scaled, scale=0.75)],
        rl(tmp_path, max_steps=1),
        prompts(),
        processing_class=tiny_tokenizer(),
    )
    made.train()
    row = made.state.log_history[0]
    means = {name: value for name, value in row.items() if name.endswith("/mean")}
    assert means == {"rewards/AsyncReward/mean": 0.25, "rewards/scaled/mean": 0.75}
    assert row["reward_failures"] == 0


def test_groups_and_names_of_rewards(tmp_path):
    """Evaluation has its own group size, None is no reward, and two lambdas have two names."""
    seen = []
    made = DiffuGRPOTrainer(
        small_model(),
        [lambda completion: 0.5, lambda completions, **_: [None] * len(completions)],
        rl(tmp_path, num_generations=4, num_generations_eval=2, per_device_train_batch_size=8),
        prompts(),
        prompts(3),
        processing_class=tiny_tokenizer(),
        on_rollout=lambda step, rows, completions, rewards: seen.append((rows, rewards)),
    )
    made.evaluate()
    made.train()
    numbers = [row["number"] for row in seen[0][0]]
    assert numbers == [numbers[0]] * 4 + [numbers[4]] * 4
    assert seen[0][1] == [0.5] * 8
    row = made.state.log_history[-2]
    assert row["zero_std_groups"] == 2
    assert {"rewards/<lambda>/mean", "rewards/<lambda>_2/mean"} <= {*row}


@pytest.mark.parametrize(("first", "second"), [((8, 1), (2, 4)), ((2, 4), (8, 1))])
def test_rl_resumes_with_other_micro_batches(tmp_path, first, second):
    """In the middle of a rollout: step 3 is its second pass."""

    def made(folder, size, slices, steps):
        args = rl(
            folder,
            num_iterations=2,
            num_generations=4,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=slices,
            max_steps=steps,
            save_steps=3,
            lr_scheduler_type="constant",
            optim="sgd",
        )
        return DiffuGRPOTrainer(
            small_model(), length_reward, args, prompts(), processing_class=tiny_tokenizer()
        )

    full = made(tmp_path / "full", *first, 4)
    full.train()
    made(tmp_path / "cut", *first, 3).train()
    resumed = made(tmp_path / "cut", *second, 4)
    resumed.train(resume_from_checkpoint=True)
    for one, other in zip(full.model.parameters(), resumed.model.parameters(), strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-4)


def wrong_length(completions, **_):
    return [1.0]


def no_list(completions, **_):
    return 1.0


def needs_solution(completions, solution, **_):
    return [0.0] * len(completions)


def ours_needs_solution(completion, solution):
    return 0.0


BAD_RL = {
    "wrong_length": ({"reward_funcs": wrong_length}, "1 values for 4 completions"),
    "no list": ({"reward_funcs": no_list}, "not a list"),
    "column": ({"reward_funcs": needs_solution}, "column 'solution'"),
    "our column": ({"reward_funcs": ours_needs_solution}, "column 'solution'"),
    "no prompt": ({"train_dataset": Dataset.from_dict({"text": ["a"] * 8})}, "column 'prompt'"),
    "few prompts": ({"train_dataset": prompts(1)}, "1 rows, a rollout 2"),
    "no rows": ({"train_dataset": {"prompt": "a"}}, "datasets.Dataset"),
    "answered": (
        {
            "train_dataset": [
                *prompts(7),
                {"prompt": [{"role": "assistant", "content": "1"}], "number": 1},
            ]
        },
        "row 7: .*assistant's answer",
    ),
    "baseline": ({"baseline": "median"}, "baseline='median'"),
    "long": ({"sampler": SamplerConfig(512, 512, 4)}, "max_completion_length=512"),
    "vllm": ({"use_vllm": True}, "use_vllm=True"),
    "liger": ({"use_liger_kernel": True}, "use_liger_kernel=True"),
    "top_p": ({"top_p": 0.9}, "top_p=0.9"),
    "estimator": ({"estimator": "mean_field"}, "estimator='mean_field'"),
    "loss_type": ({"loss_type": "cispo"}, "loss_type='cispo'"),
    "pair": ({"loss_type": "spg"}, "estimator elbo"),
    "bound": ({"loss_type": "gspo", "estimator": "elbo", "beta": 0.1}, "k2_sequence"),
    "steps": ({"steps_per_generation": 2}, "gradient_accumulation_steps=2"),
    "tools": ({"tools": [print]}, "tools"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_RL)
def test_bad_rl_input_is_refused_in_one_line(tmp_path, name):
    changes, told = BAD_RL[name]
    given = {"reward_funcs": length_reward, "train_dataset": prompts()}
    of_trainer = {key: changes[key] for key in changes if key in (*given, "tools")}
    options = {key: value for key, value in changes.items() if key not in of_trainer}
    with pytest.raises(ValueError, match=rf"^[^\n]*{told}[^\n]*$"):
        DiffuGRPOTrainer(
            small_model(),
            args=rl(tmp_path, **options),
            processing_class=tiny_tokenizer(),
            **given | of_trainer,
        ).train()


@pytest.mark.slow
def test_rl_evaluates_on_held_out_prompts(tmp_path):
    made = DiffuGRPOTrainer(
        small_model(),
        length_reward,
        rl(tmp_path, per_device_eval_batch_size=4, num_generations_eval=4),
        prompts(),
        eval_dataset=prompts(3),
        processing_class=tiny_tokenizer(),
    )
    first = made.evaluate()
    assert 0 < first["eval_reward"] < 1
    assert first["eval_reward"] == made.evaluate()["eval_reward"]
    made.train()
    assert made.model.training
