"""Planned forward passes of RL and evaluation against those of trainer and sampler."""

from dataclasses import replace

import pytest
import torch
from rl_trainer import trainer

from weft_rl.config.load import load_run_config
from weft_rl.config.model import LoraConfig
from weft_rl.config.rl import MasksConfig, RLConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.tasks import load_records
from weft_rl.errors import UserError
from weft_rl.evaluation.settings import (
    PUBLISHED_RECORDS,
    evaluation_settings,
    most_records,
)
from weft_rl.families.base import Sizes
from weft_rl.families.llada import LLADA
from weft_rl.families.shape import ModelShape
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import SYMBOLS
from weft_rl.plan.command import main
from weft_rl.plan.compute import forward_flops, rollout, rows_per_pass
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plan, model_shape
from weft_rl.sampler import generate

SIZES = Sizes(64, 16, 1, 2, 2, 32)
SHAPE = ModelShape(LLADA, SIZES, LoraConfig(), "float32", checkpointing=False, bf16=False)
# long completions that do not end: no two views are equal by chance
SAMPLER = SamplerConfig(48, 48, 4, temperature=1.0, end_tokens="never")


def config(*argv):
    return load_run_config(argv, command="it")


def options(estimator, loss_type="bnpo", **more):
    kl = "k2_sequence" if estimator == "elbo" else "k3"
    loss = replace(RLConfig().loss, kl_estimator=kl)
    blocks = {"loss": loss, "num_prompts": 2, "num_generations": 4, "learning_rate": 1e-6}
    return RLConfig(estimator=estimator, loss_type=loss_type, **(blocks | more))


def masks(*, shared=False, **more):
    return MasksConfig(share_group_masks=shared, **more)


HALVES = replace(RLConfig().optimizer, micro_batch_size=2)
COMPLEMENTS = masks(shared=True, num_mc_samples=4, complement=True)
QUADRATURE = masks(num_mc_samples=8, t_sampling="quadrature")
TOP_ENTROPY = replace(RLConfig().loss, top_entropy_share=0.5)
# Rows of a pass over two groups of four, by hand.
PASSES = {
    "one_step": (options("one_step"), 2),
    "one_step, masks per row": (options("one_step", masks=masks()), 8),
    "one_step, halves of groups": (options("one_step", optimizer=HALVES), 4),
    # everything masked, once per group; two more views of each completion
    "coupled": (options("coupled", kl_coef=0.0), 2 + 16),
    "coupled, masks per row": (options("coupled", masks=masks()), 24),
    "random_mask": (options("random_mask", masks=masks(shared=True, num_mc_samples=3)), 24),
    "elbo": (options("elbo", "gspo"), 16),
    "elbo, complements": (options("elbo", "spg", kl_coef=0.0, masks=COMPLEMENTS), 64),
    "elbo, quadrature": (options("elbo", "wd1", masks=QUADRATURE), 64),
    "trace": (options("trace", num_iterations=3, masks=masks(shared=True, num_mc_samples=3)), 18),
    "trace, a slice per step": (options("trace", masks=masks(shared=True, num_mc_samples=9)), 26),
    "old log-probabilities in every step": (
        options("one_step", masks=masks(), loss=TOP_ENTROPY),
        8,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", PASSES)
def test_rows_of_a_pass_are_the_trainers(tmp_path, case):
    rl, rows = PASSES[case]
    made = trainer(tmp_path, rl, sampler=SAMPLER, max_steps=rl.num_iterations)
    seen = {"rollout": [], "scored": [], "trained": []}

    def count(_, __, given):
        scored = "trained" if torch.is_grad_enabled() else "scored"
        seen["rollout" if isinstance(given.get("logits_to_keep"), tuple) else scored].append(
            len(given["input_ids"])
        )

    for model in {made.model, made.ref_model} - {None}:
        model.register_forward_pre_hook(count, with_kwargs=True)
    made.train()
    run = replace(config("model=tiny", "rl.lora.r=0"), rl=rl, sampler=SAMPLER)
    plan = make_plan(run, PlanConfig("cpu"), "rl")
    planned = {each.kind: each for each in plan.passes}
    mu, size = rl.num_iterations, rl.optimizer.micro_batch_size or 8
    assert sum(seen["trained"]) == mu * rows
    assert max(seen["trained"]) == rows_per_pass(rl, size, SAMPLER.steps)
    training = planned["training"]
    # a backward pass costs two forward passes
    assert training.number * training.rows == 3 * rows
    assert mu * training.number / 3 == len(seen["trained"])
    before = [planned[name] for name in ("old policy", "reference model") if name in planned]
    scored = sum(each.number * each.rows for each in before)
    assert mu * scored == pytest.approx(sum(seen["scored"]))
    assert mu * planned["rollout"].number == len(seen["rollout"])
    assert planned["rollout"].rows == max(seen["rollout"])


@pytest.mark.parametrize("group", [2, 3, 4, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 8, 12])
def test_groups_of_a_micro_batch(group, size):
    rows = range(24)
    touched = [{row // group for row in rows[i : i + size]} for i in range(0, 24, size)]
    mean = sum(map(len, touched)) / len(touched)
    rl = RLConfig(num_prompts=24 // group, num_generations=group)
    assert rows_per_pass(rl, size, 4) == pytest.approx(mean)
    assert -(-rows_per_pass(rl, size, 4) // 1) == max(map(len, touched))


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        *(([], 1), (["rl.masks.share_group_masks=false"], 6), (["rl.estimator=coupled"], 1 + 12)),
        (["rl.estimator=trace", "rl.masks.num_mc_samples=4"], 1 + 18),
        (["rl.estimator=random_mask", "rl.masks.num_mc_samples=8"], 48),
    ],
)
def test_activations_are_those_of_the_rows(words, rows):
    # without checkpointing the backward pass of LLaDA-8B is the peak
    usual = ("model=llada_8b", "memory.gradient_checkpointing=false", "rl.num_prompts=1")
    run = config(*usual, *words)
    activations = model_shape(run, run.rl.lora, bf16=True).activation_bytes(rows * 456)
    assert make_plan(run, PlanConfig(), "rl").memory["activations"] == activations


def sent(sampler, prompts):
    """Shape of the token ids of each forward pass that the sampler runs."""
    special = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 2}
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: getattr(SIZES, name) for name in (*names, "intermediate_size")}
    model, shapes = fresh_model(LLaDAConfig(**sizes, **special), 0), []
    model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True
    )
    generate(model, prompts, sampler)
    return shapes


@pytest.mark.parametrize(
    "more",
    [
        *({}, {"cache": "prefix"}, {"cache": "dual", "refresh_every": 3}),
        {"cache": "dual", "cfg_scale": 1.5},
        # no token is certain enough to bring a second one along
        *({"threshold": 1.0}, {"factor": 0.0, "cache": "dual"}),
    ],
)
def test_flops_of_a_rollout_are_the_samplers(more):
    """By rows and lengths; the head's as if all of a block were masked."""
    sampler = SamplerConfig(32, 8, 16, end_tokens="never", **({"temperature": 1.0} | more))
    if "threshold" in more or "factor" in more:
        sampler = replace(sampler, temperature=0.0)
    shapes = sent(sampler, torch.arange(3, 3 + 5 * 9).view(5, 9))  # all different
    planned = rollout(SHAPE, sampler, 5, 9)
    assert sum(each.number for each in planned) == len(shapes)
    flops = sum(rows * forward_flops(SHAPE, length, 8, 41) for rows, length in shapes)
    assert sum(each.number * each.flops for each in planned) == pytest.approx(flops)


def test_losses_without_a_ratio_or_a_reference_have_fewer_passes():
    words = ("model=llada_8b", "rl.num_prompts=1", "rl.num_iterations=4")
    for more, passes in (
        ((), 4.75),  # forward, backward, and the layers once more
        (("rl.kl_coef=0",), 3.75),
        (("rl.loss_type=wd1", "rl.kl_coef=0"), 3),
        (("rl.loss.top_entropy_share=0.5", "rl.kl_coef=0"), 4),
    ):
        plan = make_plan(config(*words, *more), PlanConfig(), "rl")
        assert sum(each.number for each in plan.passes if "rollout" not in each.kind) == passes


def test_an_rl_step_by_hand():
    words = ("memory.gradient_checkpointing=false", "rl.masks.share_group_masks=false")
    plan = make_plan(config("model=llada_8b", *words), PlanConfig(), "rl")
    # 128 denoising steps serve mu = 8; each of 16 micro-batches has old (but not in the first
    # step), reference and new log-probabilities, and a backward pass
    assert sum(each.number for each in plan.passes) == 128 / 8 + 16 * (7 / 8 + 1 + 1 + 1)
    assert (plan.tokens, plan.steps) == (96 * (200 + 256), 3800)
    # one row: 2 * 456 * 6,979,321,856 weights in the layers, attention, and the head's 256 or, in
    # the rollout, 32 positions
    rows, layers, attention = 96, 2 * 456 * 6_979_321_856, 4 * 32 * 456**2 * 4096
    head = 2 * 126464 * 4096
    scored = layers + attention + 256 * head
    flops = rows * (16 * (layers + attention + 32 * head) + 3.875 * scored)
    assert plan.step_s == pytest.approx(flops / (989e12 * 0.4))


def test_small_batches_take_as_long_as_reading_the_weights():
    words = ("rl.num_prompts=1", "rl.num_generations=2", "sampler.cache=dual")
    run = config("model=llada_8b", *words, "rl.optimizer.micro_batch_size=1", "rl.kl_coef=0")
    fast, slow = (make_plan(run, PlanConfig(utilization=u), "rl") for u in (1.0, 0.9999))
    windows = [each for each in fast.passes if each.kind == "cached rollout"]
    reading = sum(each.number for each in windows) * 2 * 8_015_581_184 / 3.35e12
    rest = [each for each in fast.passes if each.kind != "cached rollout"]
    computing = sum(each.number * each.flops for each in rest) / 989e12
    assert fast.step_s == pytest.approx(reading + computing)
    assert slow.step_s == pytest.approx(reading + computing / 0.9999)


def test_hours_of_evaluation_by_hand():
    sizes = ("base.hidden_size=16", "base.num_hidden_layers=1", "base.intermediate_size=32")
    sampler = ("sampler.gen_length=16", "sampler.block_length=8", "sampler.steps=8")
    run = config("model=tiny", "stages=[sft,rl]", "eval.num_records=10", *sizes, *sampler)
    plan = make_plan(run, PlanConfig("cpu", prompt_length=9), "sft")
    # 16 + 9 tokens, logits of a block; ten records, 8 steps each
    weights = 4 * 16 * 16 + 3 * 16 * 32
    row = 2 * 25 * weights + 4 * 25 * 25 * 16 + 2 * 8 * len(SYMBOLS) * 16
    assert plan.evaluation_s == pytest.approx(80 * row / (0.1e12 * 0.4))
    assert plan.hours == pytest.approx((plan.step_s * plan.steps + plan.evaluation_s) / 3600)
    # a device's share: four of ten
    three = make_plan(run, PlanConfig("cpu", prompt_length=9, devices=3), "sft")
    assert three.evaluation_s == pytest.approx(0.4 * plan.evaluation_s)


def test_which_evaluations_a_stage_has():
    def seconds(stage, *words):
        return make_plan(config("model=tiny", *words), PlanConfig("cpu"), stage).evaluation_s

    once = seconds("rl")
    assert once > 0
    assert seconds("rl", "eval.after_each=false") == 0
    assert seconds("weft", "stages=[weft,eval,rl]", "eval.after_each=false") == once
    assert seconds("rl", "stages=[weft,eval,rl]", "eval.after_each=false") == 0
    # 64 records every 60 of 200 steps, a fourth of 256: three times
    watched = seconds("rl", "rl.watch.evaluate_steps=60", "rl.max_steps=200")
    assert watched == pytest.approx(once + 3 * once / 4)
    assert seconds("rl", "eval.data=some/set", "task=gsm8k", "eval.preset=paper") is None


@pytest.mark.parametrize(
    ("words", "records"),
    [
        (["model=tiny"], 256),
        (["preset=paper"], 256),  # d1's
        (["preset=paper", "task=gsm8k"], 1319),
        (["preset=paper", "task=math500", "eval.num_records=900"], 500),
        (["preset=paper", "eval.data=some/set"], None),
        (["preset=paper", "eval.data=some/set", "eval.num_records=7"], 7),
        (["model=tiny", "eval.data=published", "eval.num_records=300"], 300),
    ],
)
def test_records_of_an_evaluation(words, records):
    run = config(*words)
    assert most_records(run.task, evaluation_settings(run)) == records
    if records is PUBLISHED_RECORDS.get(run.task):
        assert len(load_records(run.task, "published")) == records


def test_devices_of_a_rollout():
    null = "rl.optimizer.micro_batch_size=null"
    for devices, words in ((5, []), (32, []), (97, []), (5, [null]), (97, [null])):
        argv = ["model=llada_8b", "stages=[rl]", f"devices={devices}", *words]
        with pytest.raises(UserError, match=rf"^rl\.optimizer\.micro_batch_size=.*{devices}"):
            main(argv)
    run = config("model=llada_8b", "stages=[rl]", null)
    one, many = (make_plan(run, PlanConfig(devices=n), "rl") for n in (1, 32))  # 96, 3 completions
    assert many.step_s < one.step_s


def test_the_cache_of_a_rollout_by_hand():
    for scale, copies in ((0, 1), (1.5, 2)):
        words = ("model=llada_8b", "sampler.cache=dual", f"sampler.cfg_scale={scale}")
        plan = make_plan(config(*words), PlanConfig(), "rl")
        assert plan.memory["KV cache"] == copies * 2 * 2 * 96 * 456 * 32 * 4096
