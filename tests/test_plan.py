"""Planned parameters, memory and FLOPs against built models, the allocator, a GPU, and by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from allocations import allocated
from upstream_checkpoint import llada_folder

from weft_rl.config.load import load_run_config
from weft_rl.config.model import LoraConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import BaseConfig
from weft_rl.diffusion.log_probs import token_log_probs
from weft_rl.diffusion.losses import denoising_loss
from weft_rl.errors import UserError
from weft_rl.families.base import Sizes
from weft_rl.families.dream import DREAM
from weft_rl.families.llada import EIGHT_B, LLADA
from weft_rl.families.shape import ModelShape
from weft_rl.models import LLaDAConfig, lm_head
from weft_rl.models.loading import fresh_model, with_lora
from weft_rl.models.toy import SYMBOLS, tiny_config
from weft_rl.plan import memory
from weft_rl.plan.command import main
from weft_rl.plan.compute import forward_flops, training_passes
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plan, make_plans
from weft_rl.plan.memory import Step
from weft_rl.plan.suggestions import suggest
from weft_rl.sampler import generate
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING

QKV = ["q_proj", "k_proj", "v_proj"]
ALL = [*QKV, "attn_out", "ff_proj", "up_proj", "ff_out"]
GIB = 2**30
MEASURED = json.loads((Path(__file__).parents[1] / "benchmarks/results/gpu.json").read_text())


def config(*argv):
    return load_run_config(argv, command="it")


def shape(sizes=EIGHT_B, lora=None, weights="float32", checkpointing=False):
    return ModelShape(LLADA, sizes, lora or LoraConfig(0), weights, checkpointing, bf16=False)


def built(sizes):
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    values = {name: getattr(sizes, name) for name in (*names, "intermediate_size")}
    special = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 2}
    rope = {"rope": not sizes.learned_positions}
    rope["max_position_embeddings"] = sizes.learned_positions or 512
    return fresh_model(LLaDAConfig(**values, **special, **rope), 0)


@pytest.mark.parametrize(
    ("lora", "trained"),
    [
        (LoraConfig(0), 8_015_581_184),
        # 32 layers, 128 * (4096 + 4096) for each of three matrices, four with one of 12288 rows
        (LoraConfig(128, targets=QKV), 32 * 3 * 128 * 8192),
        (LoraConfig(128, targets=[*QKV, "up_proj"]), 32 * 128 * (3 * 8192 + 4096 + 12288)),
        (LoraConfig(128, targets=ALL), 32 * 128 * (4 * 8192 + 3 * (4096 + 12288))),
    ],
)
def test_trained_parameters_of_llada(lora, trained):
    assert shape(lora=lora).num_trained == trained
    assert shape(lora=lora).num_params == 8_015_581_184


@pytest.mark.parametrize(("r", "targets"), [(0, QKV), (4, QKV), (4, ALL), (4, ["ff_out"])])
def test_trained_parameters_of_a_built_model(tmp_path, r, targets):
    base = fresh_model(tiny_config(BaseConfig()), 0)
    num_params = sum(p.numel() for p in base.parameters())
    model = with_lora(base, LoraConfig(r, targets=targets), "x", tmp_path)
    lora = [f"cold_start.lora.r={r}", f"cold_start.lora.targets=[{','.join(targets)}]"]
    planned = make_plan(config("model=tiny", *lora), PlanConfig("cpu"), "weft").model
    assert planned.num_trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert planned.num_params == num_params


def test_weights_by_storage():
    run = config("model=llada_8b", "cold_start.lora.r=0"), config("model=llada_8b")
    full, adapters = (make_plan(each, PlanConfig(), "weft").memory["weights"] for each in run)
    assert full == 2 * adapters
    sizes = {kind: shape(weights=kind).weight_bytes() for kind in ("float32", "bfloat16", "nf4")}
    assert sizes["float32"] == 4 * 8_015_581_184
    assert sizes["bfloat16"] == 2 * 8_015_581_184
    # 6.98e9 weights at 4.127 bits, the other 1.04e9 at 16
    assert sizes["nf4"] == pytest.approx(6.979e9 * 4.127 / 8 + 1.036e9 * 2, rel=1e-3)


SHAPES = {
    "tiny": (Sizes(len(SYMBOLS), 64, 3, 4, 4, 128, 256), 32, 60),
    "deep": (Sizes(512, 64, 6, 4, 4, 128), 4, 96),
    "wide": (Sizes(64, 128, 4, 4, 4, 352), 4, 200),
    "large vocabulary": (Sizes(4096, 64, 3, 4, 4, 128), 4, 96),
    "short": (Sizes(64, 64, 3, 4, 4, 128), 1, 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [LoraConfig(0), LoraConfig(8, 16, 0.05, ALL)])
def test_memory_of_a_step(name, checkpointing, lora):
    sizes, rows, length = SHAPES[name]
    model = with_lora(built(sizes), lora, "x", Path("y")).train()
    if checkpointing:
        getattr(model, f"{ACTIVATION_CHECKPOINTING}_enable")()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    x0 = torch.randint(2, sizes.vocab_size, (rows, length))
    everything, probability = torch.ones_like(x0).bool(), torch.full(x0.shape, 0.5)

    def step():
        # no name for the logits, so that the backward pass can free them, as in the trainer
        masks = (x0, everything, probability, everything)
        denoising_loss(model(input_ids=x0).logits, *masks).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # creates the optimizer's state
    state = [value for values in optimizer.state.values() for value in values.values()]
    measured = sum(each.nbytes for each in [*model.parameters(), *state]) + allocated(step)
    planned = Step(shape(sizes, lora, checkpointing=checkpointing), rows, length, length).memory()
    assert sum(planned.values()) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("lora", [LoraConfig(0), LoraConfig(4, targets=QKV)])
@pytest.mark.parametrize("entropies", [False, True])
def test_memory_of_a_head_in_parts(monkeypatch, lora, entropies):
    """A cold start's loss, or RL's log-probabilities: 512 positions, a quarter at a time."""
    sizes, length = Sizes(4096, 32, 2, 2, 2, 64), 512
    for module in (lm_head, memory):
        monkeypatch.setattr(module, "LOGITS_TOGETHER", length * sizes.vocab_size // 4)
    model = with_lora(built(sizes), lora, "x", Path("y"))
    x0 = torch.randint(2, sizes.vocab_size, (1, length))

    def of_part(logits, begin):
        ids = x0[:, begin : begin + logits.shape[1]]
        if entropies:
            return torch.stack(token_log_probs(logits, ids, torch.zeros(1, dtype=torch.long)), 2)
        return torch.nn.functional.cross_entropy(logits[0], ids[0], reduction="none")[None]

    def step():
        found = model(input_ids=x0, logits_to_keep=torch.arange(length), logits_fn=of_part).logits
        (found[..., 0] if entropies else found).sum().backward()

    measured = allocated(step)
    planned = Step(shape(sizes, lora), 1, length, length, entropies=entropies).memory()
    moving = sum(planned[name] for name in ("activations", "logits", "gradients"))
    assert moving == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("sizes", "rows", "more"),
    [
        *((Sizes(64, 64, 3, 4, 4, 512), 16, {}), (Sizes(64, 256, 3, 4, 4, 512), 8, {})),
        # with a larger vocabulary, the logits need more than a layer
        (Sizes(64, 64, 2, 2, 2, 512), 8, {"cfg_scale": 1.5, "cache": "dual"}),
        (Sizes(4096, 64, 2, 2, 2, 512), 8, {"cfg_scale": 1.5, "cache": "dual"}),
        (Sizes(4096, 64, 2, 2, 2, 512), 8, {"cfg_scale": 1.5}),
    ],
)
def test_memory_of_a_rollout(sizes, rows, more):
    model, prompts = built(sizes), torch.arange(rows * 8).view(rows, 8) % 60 + 3
    sampler = SamplerConfig(96, 32, 3, temperature=1.0, **more)
    measured = allocated(lambda: generate(model, prompts, sampler))
    tokens = rows * 104 * (2 if sampler.cfg_scale else 1)
    sampled = {"sampled_logits": rows * 32, "sampled_tokens": tokens}
    sampled["cached_tokens"] = tokens if sampler.cache == "dual" else 0
    # a training step that needs less than the rollout
    planned = Step(shape(sizes), 1, 1, 1, **sampled).memory()
    assert planned["rollouts"] + planned["KV cache"] == pytest.approx(measured, rel=0.1)


def test_memory_on_a_gpu():
    (rl,) = MEASURED["rl"]
    cases = [("rl", ["rl.num_prompts=1"], PlanConfig(prompt_length=rl["length"] - 256), rl)]
    for row in MEASURED["cold_start"] + MEASURED["nf4"]:
        more = ["memory.quantization=nf4"] if "NF4" in row["what"] else []
        more += ["cold_start.entropy_pass.rates=cached"] if "kept" in row["what"] else []
        cases.append(("weft" if "WeFT" in row["what"] else "sft", more, PlanConfig(), row))
    for stage, more, options, row in cases:
        plan = make_plan(config("preset=paper", *more), options, stage)
        assert plan.total_memory / GIB == pytest.approx(row["peak_gib"], rel=0.03), row["what"]


def test_the_reference_model_of_a_full_fine_tune_is_a_second_copy():
    def total(*words):
        return make_plan(config("model=llada_8b", *words), PlanConfig(), "rl").total_memory

    full = [total("rl.lora.r=0", f"rl.kl_coef={kl}") for kl in (0.04, 0)]
    assert full[0] - full[1] == 4 * 8_015_581_184
    # with an adapter it is the model without it
    assert total("rl.kl_coef=0.04") == total("rl.kl_coef=0")


def test_cached_entropies_cost_a_part_of_fresh_ones():
    words = ("preset=paper", "cold_start.entropy_pass.refresh_every=4")
    cached = (*words, "cold_start.entropy_pass.rates=cached")
    sft, fresh = (make_plan(config(*words), PlanConfig(), stage) for stage in ("sft", "weft"))
    kept = make_plan(config(*cached), PlanConfig(), "weft")
    assert fresh.step_s > 1.2 * sft.step_s
    assert kept.step_s - sft.step_s == pytest.approx((fresh.step_s - sft.step_s) / 4)


def test_flops_by_hand():
    model = shape(Sizes(10, 4, 2, 2, 2, 6))
    # two layers of 4 * 4^2 + 3 * 4 * 6 = 136 weights, two FLOPs each, for 5 tokens;
    # 4 * 2 layers * 5^2 pairs * width 4; the head for 3 tokens
    assert forward_flops(model, 5, 3) == 2 * 5 * 272 + 4 * 2 * 25 * 4 + 2 * 3 * 10 * 4
    assert training_passes(model) == 3
    assert training_passes(replace(model, lora=LoraConfig(2))) == 2
    assert training_passes(replace(model, checkpointing=True)) == 4


def test_a_base_by_hand():
    sizes = ("base.hidden_size=16", "base.num_hidden_layers=2", "base.intermediate_size=32")
    words = ("base.batch_size=8", "base.num_attention_heads=2", "sampler.gen_length=32")
    run = config("model=tiny", *sizes, *words)
    plan = make_plan(run, PlanConfig("cpu", prompt_length=68), "base")
    # 100 tokens; the backward pass costs twice as much; half of the answer has logits
    layers = 2 * (4 * 16 * 16 + 3 * 16 * 32)
    flops = 2 * 100 * layers + 4 * 2 * 100 * 100 * 16 + 2 * 16 * len(SYMBOLS) * 16
    assert plan.step_s == pytest.approx(3 * 8 * flops / (0.1e12 * 0.4))
    assert plan.tokens == 8 * 100
    # one process pretrains it in float32
    adapters = ("cold_start.lora.r=8", "rl.lora.r=8", "memory.dtype=bfloat16")
    one = make_plan(config("model=tiny"), PlanConfig(), "base")
    many = make_plan(config("model=tiny", *adapters), PlanConfig(devices=4), "base")
    assert (one.memory, one.step_s) == (many.memory, many.step_s)


def test_planned_stages():
    for model, given, stages in (
        ("tiny", "weft,rl", ["base", "weft", "rl"]),
        ("tiny", "weft,base,rl", ["base", "weft", "rl"]),
        ("tiny", "eval", ["base"]),
        ("llada_8b", "eval,sft,eval", ["sft"]),
    ):
        plans = make_plans(config(f"model={model}", f"stages=[{given}]"), PlanConfig("cpu"))
        assert [plan.stage for plan in plans] == stages


def test_sharded_memory():
    plan = make_plan(config("model=llada_8b"), PlanConfig(devices=4, traces=1001), "weft")
    assert plan.steps == math.ceil(1001 / 16) * 20
    run = config("model=llada_8b", "memory.dtype=float32")
    one = make_plan(run, PlanConfig(), "weft").memory
    two = make_plan(run, PlanConfig(devices=8, sharding="zero2"), "weft").memory
    three = make_plan(run, PlanConfig(devices=8, sharding="zero3"), "weft").memory
    assert (two["weights"], three["weights"]) == (one["weights"], one["weights"] / 8)
    assert two["optimizer"] == three["optimizer"] == one["optimizer"] / 8
    assert two["activations"] == three["activations"] == one["activations"]
    for stage in ("weft", "rl"):
        options = (PlanConfig(devices=8, sharding=sharding) for sharding in ("zero3", "fsdp2"))
        zero3, fsdp2 = (make_plan(run, each, stage).memory for each in options)
        assert zero3 == fsdp2
    # a rollout gathers all weights on every device
    whole = make_plan(run, PlanConfig(devices=8), "rl").memory["weights"]
    assert zero3["weights"] + zero3["rollouts"] > whole > zero3["rollouts"] - 2 * GIB


def suggested(run, options, stage, room):
    return [each.text for each in suggest(run, options, stage, room)]


@pytest.mark.parametrize(
    ("stage", "block", "rows", "sharding", "last"),
    [
        ("weft", "cold_start", "cold_start.batch_size", "none", "zero3"),
        ("rl", "rl", "rl.optimizer.micro_batch_size", "fsdp2", "fsdp2"),
    ],
)
def test_all_suggestions_in_order(stage, block, rows, sharding, last):
    words = (f"stages=[{stage}]", f"{block}.lora.r=0", f"{rows}=3")
    more = ("rl.masks.share_group_masks=false", "memory.gradient_checkpointing=false")
    dtype = ("memory.dtype=float32",) * (stage == "weft")
    run = config("model=llada_8b", *words, *more, *dtype)
    assert suggested(run, PlanConfig("rtx4090", sharding=sharding), stage, 2e9) == [
        "memory.gradient_checkpointing=true",
        f"{rows}=1",
        f"{block}.lora.r=128",
        *["memory.dtype=bfloat16"] * (stage == "weft"),  # what auto becomes with an adapter
        "memory.quantization=nf4",
        f"devices=8 sharding={last}",
    ]


def test_suggestions_stop_where_the_stage_fits_and_are_accepted():
    run = config("model=llada_8b", "memory.gradient_checkpointing=false", "memory.dtype=float32")
    suggestions = suggest(run, PlanConfig("rtx4090"), "weft", 17e9)
    assert suggestions[-1].text == "memory.quantization=nf4 (one run per stage)"
    totals = [each.memory for each in suggestions]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] <= 17e9 < totals[-2]
    options = ("memory.gradient_checkpointing=true", "memory.quantization=nf4")
    changed = config("model=llada_8b", *options)
    assert make_plan(changed, PlanConfig("rtx4090"), "weft").total_memory == totals[-1]
    words = ("model=llada_8b", "rl.preset=coupled", "rl.num_prompts=3", "stages=[weft,rl]")
    more = ("rl.optimizer.micro_batch_size=30", "rl.masks.share_group_masks=false")
    assert suggested(config(*words, *more), PlanConfig("rtx4090"), "rl", 2e9) == [
        "rl.optimizer.micro_batch_size=10",
        "rl.optimizer.micro_batch_size=1",
        "memory.quantization=nf4 (one run per stage)",
        "devices=6 sharding=zero3",  # of eight, those that can share 30 completions
    ]
    # the run refuses narrower weights, which its other stage trains
    mixed = suggested(config(*words, "rl.lora.r=0"), PlanConfig("rtx4090"), "weft", 2e9)
    assert not any("memory.dtype" in text or "nf4" in text for text in mixed)
    # bfloat16 and checkpointing are the preset's
    options = PlanConfig("rtx4090", memory_gib=20)
    (nf4,) = suggested(config("model=llada_8b"), options, "rl", 20 * GIB)
    assert nf4 == "memory.quantization=nf4 (one run per stage)"
    base = suggested(config("model=tiny"), PlanConfig(), "base", 1e6)
    assert base == ["memory.gradient_checkpointing=true", "base.batch_size=1"]


def test_a_folder_is_planned_without_its_weights(tmp_path):
    folder, tensors = llada_folder(tmp_path / "a")
    run = config(f"model={folder}", "stages=[sft]")
    (plan,) = make_plans(run, PlanConfig())
    assert plan.model.num_params == sum(tensor.numel() for tensor in tensors.values())
    for path in folder.glob("*.safetensors"):
        path.unlink()
    assert make_plans(run, PlanConfig()) == [plan]
    (dream,) = make_plans(config("model=dream_7b", "stages=[sft]"), PlanConfig())
    assert dream.model.num_params == DREAM.count(DREAM.published_sizes)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model=/nowhere", "/nowhere/config.json"),
        ("cold_start.lora.targets=[o_proj]", "lora.targets.*o_proj"),
        *(("hardware=abacus", "hardware=abacus"), ("cold_strat.epochs=3", "cold_strat.epochs")),
        ("stages=[eval]", r"stages=\[eval\]"),
    ],
)
def test_mistakes(word, message):
    argv = {"model": "llada_8b"} | dict([word.split("=")])
    with pytest.raises(UserError, match=message):
        main([f"{key}={value}" for key, value in argv.items()])
