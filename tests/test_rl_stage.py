"""The stage: a small matrix of settings, evaluation beside training, and input that is bad."""

import json
import math
import re
import shutil
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from rl_trainer import T, dataset, losses, options, rollout, state, trainer
from safetensors.torch import load_file

from weft_rl.errors import UserError
from weft_rl.pipeline.run import main
from weft_rl.rewards.registry import training
from weft_rl.sampler import SamplerConfig
from weft_rl.trainers.reward_adapter import trl_rewards
from weft_rl.trainers.rl_checks import refuse_failing

SMALL = ["preset=tiny", "stages=[rl]", "eval.after_each=false", "sampler.steps=4"]
SMALL += ["rl.num_prompts=2", "rl.num_generations=2", "rl.max_steps=2", "rl.save_steps=2"]


def run(start, out, *words):
    """A finished run's metric lines."""
    own = dict(word.split("=", 1) for word in (*SMALL, *words))
    argv = [f"{key}={value}" for key, value in own.items()]
    assert main([*argv, f"model={start}", f"out={out}"]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time_s"} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("mu", "kl", "lora"), [(2, 0.04, 0), (1, 0, 2)])
def test_matrix_with_evaluation_on_and_off(start, tmp_path, mu, kl, lora):
    words = [f"rl.num_iterations={mu}", f"rl.kl_coef={kl}", f"rl.lora.r={lora}"]
    plain = run(start, tmp_path / "off", *words)
    watched = run(
        start, tmp_path / "on", *words, "rl.watch.evaluate_steps=1", "rl.watch.evaluate_records=5"
    )
    # training does not notice that it is watched
    assert [row for row in watched if "loss" in row] == plain
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    one, other = (load_file(tmp_path / n / "checkpoints/rl/step-2" / name) for n in ("off", "on"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    scores = [row for row in watched if "held_out/score" in row]
    assert [row["step"] for row in scores] == [1, 2]
    assert all(row["held_out/n"] == 5 for row in scores)
    assert all(0 <= row["held_out/low"] <= row["held_out/high"] <= 100 for row in scores)
    assert all(("kl" in row) == (kl > 0) for row in plain)


@pytest.mark.slow
def test_every_method_runs_through_the_stage(start, tmp_path):
    for method in ("coupled", "d1_tiny", "spg", "wd1"):
        words = [f"rl.preset={method}", "rl.optimizer.micro_batch_size=2", "rl.max_steps=1"]
        rows = run(start, tmp_path / method, *words)
        wanted = "reward reward_ema reward_std entropy completion_length parsable_share"
        assert set(wanted.split()) <= set(rows[0])
        assert all(math.isfinite(row["loss"]) for row in rows)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(start, tmp_path):
    words = ["rl.max_steps=3", "rl.num_iterations=2", "rl.save_steps=1", "rl.estimator=coupled"]
    words.append("reliability.keep_checkpoints=null")
    whole = run(start, tmp_path / "whole", *words)
    folder = tmp_path / "part"
    run(start, folder, *words)
    for step in (2, 3):  # back to the middle of a rollout
        shutil.rmtree(folder / f"checkpoints/rl/step-{step}")
    (folder / "stages.json").unlink()
    assert run(start, folder, *words) == whole


def test_fewer_prompts_than_a_rollout_has(tmp_path):
    with pytest.raises(ValueError, match="1 rows"):
        trainer(tmp_path, records=dataset(1))


def test_completions_without_an_end_token_count_in_full(tmp_path):
    made = trainer(tmp_path)
    made.sampler = SamplerConfig(T, T, 4, temperature=1.0, early_stop=False)
    batch = rollout(made)[0]
    ends = made.model.config.end_token_ids
    endless = ~torch.isin(batch["completion_ids"], torch.tensor(ends)).any(1)
    assert endless.any()
    assert (batch["completion_mask"].sum(1)[endless] == T).all()
    assert made.compute_loss(made.model, batch).isfinite()


# --- rewards


def replies(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def graded(function, bounded=(), count=4):
    """What the trainer's form makes of a function, and what it counted."""
    seen, fields = {}, [{"i": i} for i in range(count)]
    (made,) = trl_rewards({"own": function}, bounded)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        completions = replies(*(f"<answer>{i}</answer>" for i in range(count)))
        values = made(completions=completions, fields=fields, log_metric=seen.__setitem__)
    return made, values, seen, caught


def test_what_cannot_be_compared_is_counted():
    """Of four answers two are too costly to read, and a third is the same as one before."""
    (made,) = trl_rewards({"correct": training("math500")["correct"].reward})
    texts = (r"\boxed{0.5}", r"\boxed{9^{9^{9}}}", r"\boxed{8^{8^{8}}}", r"\boxed{0.5}")
    completions = replies(*texts)
    fields, seen = [{"answer": r"\frac{1}{2}", "problem": "p"}] * 4, {}
    assert made(completions=completions, fields=fields, log_metric=seen.__setitem__) == [1, 0, 0, 1]
    assert seen == {"reward_failures": 0.0, "undecided_answers": 0.5, "parsable_share": 1.0}


@pytest.mark.parametrize("value", [2.0, -0.5, 1.001, np.float32(7), 10])
def test_a_bounded_reward_outside_its_range_is_refused(value):
    def half(completion, i):
        return value if i == 3 else 0.5

    free, values, *_ = graded(half)
    assert values[3] == pytest.approx(float(value))
    refuse_failing([free])
    bounded, *_ = graded(half, {"own"})
    with pytest.raises(UserError, match="reward own: is "):
        refuse_failing([bounded])


BAD = [None, math.nan, math.inf, -math.inf, "1", b"1", [1], ValueError("no"), KeyError("puzzle")]
# too large for a float, and for float32
BAD += [10**5000, 1e39, np.float64(1e39), np.float32("nan"), torch.ones(2)]


@pytest.mark.parametrize("value", BAD, ids=lambda value: type(value).__name__)
def test_a_reward_that_fails_earns_nothing_and_is_counted(value):
    def reward(completion, i):
        if isinstance(value, Exception) and i % 2:
            raise value
        return value if i % 2 else 1

    _, values, seen, caught = graded(reward)
    assert values == [1.0, 0.0, 1.0, 0.0]
    assert seen == {"reward_failures": 0.5, "parsable_share": 1.0}
    assert "reward own" in str(caught[0].message)


def test_every_kind_of_number_is_a_reward():
    kinds = [True, 1, 1.0, np.float32(1), np.int64(1), np.bool_(True), torch.tensor(1), Fraction(1)]
    _, values, seen, _ = graded(lambda completion, i: kinds[i], count=len(kinds))
    assert values == [1.0] * len(kinds)
    assert all(type(each) is float for each in values)
    assert seen["reward_failures"] == 0


@pytest.mark.parametrize("resample", [0, 1])
def test_a_reward_that_always_fails_stops_the_run(tmp_path, resample):
    def fails(completion, **_):
        raise KeyError("missing")

    made = trainer(tmp_path, options(rollout={"resample": resample}), reward={"own": fails})
    with pytest.raises(UserError, match=r"reward own: failed on all 8 completions.*'missing'"):
        rollout(made)


def test_async_rewards_are_awaited_and_may_fail(tmp_path):
    async def slow(completion, **_):
        if len(completion) % 3 == 0:
            raise ValueError(completion)
        return len(completion) / 100

    made, scores, texts = trainer(tmp_path, reward={"slow": slow}), [], []

    def keep(step, rows, completions, rewards):
        scores.extend(rewards)
        texts.extend(messages[0]["content"] for messages in completions)

    made.on_rollout = keep
    batch = rollout(made)[0]
    wanted = [0.0 if len(text) % 3 == 0 else len(text) / 100 for text in texts]
    assert scores == pytest.approx(wanted)
    assert batch["advantages"].isfinite().all()


def test_a_gradient_that_is_not_finite_stops_before_the_weights(tmp_path):
    made = trainer(tmp_path, options(optimizer={"micro_batch_size": 4}))
    made.model.model.transformer.ln_f.weight.register_hook(lambda grad: grad * torch.nan)
    before = state(made)
    rows = [made.train_dataset[i]["id"] for i in range(8)]
    with pytest.raises(UserError, match=r"rl, step 1: the gradient is not finite") as told:
        made.train()
    # a rollout's two prompts with four completions each
    (named,) = re.findall(r"\(records (.*?)\)", str(told.value))
    assert named in (
        ", ".join([one] * 4 + [other] * 4) for one in rows for other in rows if one != other
    )
    assert all(map(torch.equal, before, state(made)))


@pytest.mark.slow
def test_groups_of_equal_rewards_are_sampled_again(tmp_path):
    def rarely(completion, **_):
        return float(len(completion) % 5 == 0)

    plain = trainer(tmp_path / "a", reward=rarely)
    again = trainer(tmp_path / "b", options(rollout={"resample": 8}), reward=rarely)
    losses(plain)
    losses(again)

    def total(made, name):
        return sum(row.get(name, 0) for row in made.state.log_history)

    assert total(plain, "zero_std_groups") > total(again, "zero_std_groups")
    assert total(again, "resampled_groups") > 0
