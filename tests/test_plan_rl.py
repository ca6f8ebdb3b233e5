"""The plan of RL against what the trainer and the sampler really run, and against a GPU's times."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from allocations import allocated
from rl_trainer import trainer

import weft_rl.stages.rl
from weft_rl.config.load import load_run_config
from weft_rl.config.model import LoraConfig
from weft_rl.config.rl import MasksConfig, RLConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.errors import UserError
from weft_rl.families.base import Sizes
from weft_rl.families.llada import LLADA
from weft_rl.families.shape import ModelShape
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import SYMBOLS
from weft_rl.plan.command import cures_of, main, make_plan, network_of
from weft_rl.plan.compute import rl_work, rollout, rows_of_pass, seconds_of
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.memory import HARDWARE, Step, forward_operations
from weft_rl.sampler import generate

GIB = 2**30
MEASURED = json.loads((Path(__file__).parents[1] / "benchmarks/results/gpu.json").read_text())
SMALL = Sizes(len(SYMBOLS), 16, 1, 2, 2, 128, 256)
# long completions that end nowhere: no two views are alike by chance
SAMPLER = SamplerConfig(48, 48, 4, temperature=1.0, end_tokens="never")


def config(*argv):
    return load_run_config(argv, command="it")


def network(sizes=SMALL):
    return ModelShape(LLADA, sizes, LoraConfig(), "float32", checkpointing=False, half=False)


def chosen(estimator, objective="bnpo", **more):
    """RL options of two prompts with four completions each."""
    kl = replace(RLConfig().loss, kl_estimator="k2_sequence" if estimator == "elbo" else "k3")
    blocks = {"loss": kl, "num_prompts": 2, "num_generations": 4, "learning_rate": 1e-6}
    return RLConfig(estimator=estimator, loss_type=objective, **(blocks | more))


def parts(size):
    return replace(RLConfig().optimizer, micro_batch_size=size)


PER_ROW = MasksConfig(share_group_masks=False)
# Rows of a pass over two groups of four, by hand.
PASSES = {
    "one_step": (chosen("one_step"), 2),
    "one_step, per row": (chosen("one_step", masks=PER_ROW), 8),
    "one_step, halves of groups": (chosen("one_step", optimizer=parts(2)), 4),
    # everything hidden once a group; two more views of each completion
    "coupled": (chosen("coupled", kl_coef=0.0), 2 + 16),
    "coupled, per row": (chosen("coupled", masks=PER_ROW), 24),
    "random_mask": (chosen("random_mask", masks=MasksConfig(num_mc_samples=3)), 24),
    "elbo": (chosen("elbo", "gspo"), 16),
    "elbo, complements": (
        chosen("elbo", "spg", kl_coef=0.0, masks=MasksConfig(num_mc_samples=4, complement=True)),
        64,
    ),
    "elbo, quadrature": (
        chosen(
            "elbo",
            "wd1",
            masks=MasksConfig(share_group_masks=False, num_mc_samples=8, t_sampling="quadrature"),
        ),
        64,
    ),
    "trace": (chosen("trace", num_iterations=3, masks=MasksConfig(num_mc_samples=3)), 2 + 16),
    "trace, a slice each step": (chosen("trace", masks=MasksConfig(num_mc_samples=9)), 2 + 24),
    "old log-probabilities of all passes": (
        chosen("one_step", masks=PER_ROW, loss=replace(RLConfig().loss, top_entropy_share=0.5)),
        8,
    ),
}


@pytest.mark.parametrize("case", PASSES)
def test_rows_of_a_pass_are_the_trainers(tmp_path, case):
    rl, rows = PASSES[case]
    made = trainer(tmp_path, rl, sampler=SAMPLER, max_steps=rl.num_iterations)
    seen = {"rollout": [], "scored": [], "trained": []}

    def count(_, __, given):
        scored = "trained" if torch.is_grad_enabled() else "scored"
        seen["rollout" if "logit_rows" in given else scored].append(len(given["input_ids"]))

    for model in {made.model, made.ref_model} - {None}:
        model.register_forward_pre_hook(count, with_kwargs=True)
    made.train()
    whole = replace(config("model=tiny", "rl.lora.r=0"), rl=rl, sampler=SAMPLER)
    step = Step(network(), 1, 1, 1)
    planned = {each.what: each for each in rl_work(whole, PlanConfig("cpu"), step).forwards}
    mu = rl.num_iterations
    assert sum(seen["trained"]) == mu * rows
    # a way back of two forwards
    size = rl.optimizer.micro_batch_size or 8
    assert max(seen["trained"]) == rows_of_pass(rl, size, SAMPLER.steps)
    training = planned["training"]
    assert training.number * training.rows == 3 * rows
    assert rl.num_iterations * training.number / 3 == len(seen["trained"])
    before = [planned[name] for name in ("old policy", "reference") if name in planned]
    assert mu * sum(each.number * each.rows for each in before) == pytest.approx(
        sum(seen["scored"])
    )
    assert mu * planned["rollout"].number == len(seen["rollout"])
    assert planned["rollout"].rows == max(seen["rollout"])


@pytest.mark.parametrize("group", [2, 3, 4, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 8, 12])
def test_groups_of_a_micro_batch(group, size):
    rows = range(24)
    touched = [{row // group for row in rows[i : i + size]} for i in range(0, 24, size)]
    mean = sum(map(len, touched)) / len(touched)
    rl = RLConfig(num_prompts=24 // group, num_generations=group)
    assert rows_of_pass(rl, size, 4) == pytest.approx(mean)
    assert -(-rows_of_pass(rl, size, 4) // 1) == max(map(len, touched))


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ([], 1),
        (["rl.masks.share_group_masks=false"], 6),
        (["rl.estimator=coupled"], 1 + 12),
        (["rl.estimator=trace", "rl.masks.num_mc_samples=4"], 1 + 18),
        (["rl.estimator=random_mask", "rl.masks.num_mc_samples=8"], 48),
    ],
)
def test_activations_are_of_the_rows_that_go_through(words, rows):
    # 8B's own, layers kept: the way back is the step's largest moment
    usual = ("model=llada_8b", "memory.gradient_checkpointing=false", "rl.num_prompts=1")
    made = config(*usual, *words)
    plan = make_plan(made, PlanConfig(), "rl")
    activations = network_of(made, made.rl.lora, half=True).activation_bytes(rows * 456)
    assert plan.memory["activations"] == activations


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"cache": "prefix"},
        {"cache": "dual", "refresh_every": 3},
        {"cache": "dual", "cfg_scale": 1.5},
    ],
)
def test_operations_of_a_rollout_are_the_samplers(more):
    """Of rows and lengths as they go through a model, the head's as if its block were all open."""
    shape = LLaDAConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        **{"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 2},
    )
    model, sizes = fresh_model(shape, 0), Sizes(64, 16, 1, 2, 2, 32)
    prompts = torch.arange(3, 3 + 5 * 9).view(5, 9)  # all different
    sampler = SamplerConfig(32, 8, 16, end_tokens="never", temperature=1.0, **more)
    sent = []

    def count(_, __, given):
        sent.append(given["input_ids"].shape)

    model.register_forward_pre_hook(count, with_kwargs=True)
    generate(model, prompts, sampler)
    planned = rollout(network(sizes), sampler, 5, 9)
    assert sum(each.number for each in planned) == len(sent)
    done = [rows * forward_operations(network(sizes), length, 8, 41) for rows, length in sent]
    assert sum(each.number * each.operations for each in planned) == pytest.approx(sum(done))


@pytest.mark.parametrize("vocabulary", [64, 4096])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_memory_of_guidance(cache, vocabulary):
    sizes = Sizes(vocabulary, 64, 2, 2, 2, 512)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    shape = {name: getattr(sizes, name) for name in (*names, "intermediate_size")}
    special = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 2}
    model = fresh_model(LLaDAConfig(**shape, **special), 0)
    prompts = torch.arange(4, 4 + 40).view(8, 5)
    sampler = SamplerConfig(64, 32, 4, temperature=1.0, cfg_scale=1.5, cache=cache)
    measured = allocated(lambda: generate(model, prompts, sampler))
    tokens = 2 * 8 * 69
    cached = tokens if cache == "dual" else 0
    step = Step(
        network(sizes), 1, 1, 1, cached_tokens=cached, sampled_logits=8 * 32, sampled_tokens=tokens
    )
    assert step.memory()["rollouts"] + step.memory()["KV cache"] == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_guidance_has_two_rows_of_each(cache):
    words = ("model=llada_8b", f"sampler.cache={cache}")
    once, twice = (
        make_plan(config(*words, f"sampler.cfg_scale={scale}"), PlanConfig(), "rl")
        for scale in (0, 1.5)
    )
    assert twice.memory["KV cache"] == 2 * once.memory["KV cache"]
    assert once.forwards == twice.forwards  # each of twice the rows
    assert twice.seconds > once.seconds
    if cache == "dual":
        assert once.memory["KV cache"] == 2 * 2 * 96 * 456 * 32 * 4096


def test_objectives_without_a_ratio_or_a_reference_have_fewer_passes():
    words = ("model=llada_8b", "rl.num_prompts=1", "rl.num_iterations=4")
    forwards = {
        name: make_plan(config(*words, *more), PlanConfig(), "rl").forwards - 128 / 4
        for name, more in {
            "bnpo": (),
            "no reference": ("rl.kl_coef=0",),
            "wd1": ("rl.loss_type=wd1", "rl.kl_coef=0"),
            "picked": ("rl.loss.top_entropy_share=0.5", "rl.kl_coef=0"),
        }.items()
    }
    # there, back, and the layers once more
    assert forwards == {"bnpo": 4.75, "no reference": 3.75, "wd1": 3, "picked": 4}


@pytest.mark.parametrize("row", MEASURED["sampler"], ids=lambda row: f"{row['what']} {row['rows']}")
def test_seconds_of_the_sampler_on_a_gpu(row):
    cache = {"exact": "none"}.get(row["what"], row["what"].split()[0])
    made = network_of(config("model=llada_8b"), LoraConfig(0), half=True)
    forwards = rollout(made, SamplerConfig(256, 32, 256, cache=cache), row["rows"], 144)
    planned = seconds_of(forwards, made, HARDWARE["h100"], PlanConfig().utilisation)
    assert planned == pytest.approx(row["ours_s"], rel=0.13)


def test_an_iteration_on_a_gpu():
    (row,) = MEASURED["rl"]
    made = config("preset=paper", "rl.num_prompts=1")
    options = PlanConfig(prompt_length=row["length"] - 256)
    plan = make_plan(made, options, "rl")
    assert 8 * plan.seconds == pytest.approx(row["iteration_s"], rel=0.08)
    assert sum(plan.memory.values()) / GIB == pytest.approx(row["peak_gib"], rel=0.03)
    # the table's: two bytes of each weight in a forward; four would not fit that peak
    read = 2 * 8_015_581_184 * row["forwards"] / row["rollout_s"] / 1e12
    assert row["rollout_tera_bytes"] == pytest.approx(read)
    assert row["peak_gib"] < 4 * 8_015_581_184 / GIB


def test_plans_beside_a_gpus_cold_starts():
    more = {"WeFT, estimates kept 5 epochs": ["cold_start.entropy_pass.rates=cached"]}
    more["SFT, NF4"] = ["memory.quantization=nf4"]
    for row in MEASURED["cold_start"] + MEASURED["nf4"]:
        stage = "weft" if "WeFT" in row["what"] else "sft"
        plan = make_plan(config("preset=paper", *more.get(row["what"], [])), PlanConfig(), stage)
        assert plan.seconds == pytest.approx(row["step_s"], rel=0.08)
        assert sum(plan.memory.values()) / GIB == pytest.approx(row["peak_gib"], rel=0.03)


@pytest.mark.parametrize("devices", [5, 32, 97])
@pytest.mark.parametrize("words", [[], ["rl.optimizer.micro_batch_size=null"]])
def test_devices_that_cannot_share_a_rollout(monkeypatch, devices, words):
    made = config("model=llada_8b", "stages=[rl]", *words)
    if devices == 32 and words:  # three completions each
        assert make_plan(made, PlanConfig(devices=32), "rl").seconds > 0
        return
    monkeypatch.setenv("WORLD_SIZE", str(devices))
    with pytest.raises(UserError, match=f"{devices} processes cannot share the 96") as run:
        weft_rl.stages.rl._arguments(SimpleNamespace(config=made), [1.0])
    with pytest.raises(UserError) as plan:
        main(["model=llada_8b", "stages=[rl]", f"devices={devices}", *words])
    assert str(plan.value) == str(run.value)


def test_cures_are_ones_that_the_run_takes():
    words = ("model=llada_8b", "rl.preset=coupled", "rl.num_prompts=3", "stages=[weft,rl]")
    whole = config(*words, "rl.optimizer.micro_batch_size=30", "rl.masks.share_group_masks=false")
    lines = cures_of(whole, PlanConfig("rtx4090"), "rl", 2e9)
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "rl.optimizer.micro_batch_size=10",
        "rl.optimizer.micro_batch_size=1",
        "memory.quantization=nf4 (a run for each stage)",
        "devices=6 sharding=zero3",  # of eight, those that share 30 completions
    ]
    # the run would refuse narrower weights, which its other stage trains
    mixed = config(*words, "rl.lora.r=0")
    lines = cures_of(mixed, PlanConfig("rtx4090"), "weft", 2e9)
    assert not any("memory.dtype" in line for line in lines)


def test_weights_are_wide_for_a_run_that_trains_them():
    plans = [
        make_plan(config("model=llada_8b", f"rl.lora.r={r}"), PlanConfig(), "weft") for r in (0, 8)
    ]
    assert plans[0].memory["weights"] == 2 * plans[1].memory["weights"]


def test_stages_that_are_not_planned(capsys):
    with pytest.raises(UserError, match=r"stages=\[eval\]: no plans are made of these; name"):
        main(["model=llada_8b", "stages=[eval]"])
    main(["model=llada_8b", "stages=[eval,sft,eval]"])
    assert "not planned: eval of the model as it is\n" in capsys.readouterr().out
    main(["model=llada_8b", "stages=[sft,eval]"])
    assert "not planned" not in capsys.readouterr().out
