"""The plan's numbers against counted parameters, the allocator's own account, and sums by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from allocations import allocated
from small_cold_start import examples, trainer
from test_cli import ask
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
from weft_rl.models import LLaDAConfig
from weft_rl.models import lm_head as head
from weft_rl.models.loading import fresh_model, with_lora
from weft_rl.models.toy import SYMBOLS, tiny_config
from weft_rl.plan import memory as budget
from weft_rl.plan.command import cures_of, main, make_plan, make_plans
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.memory import Step, backward_share, forward_operations
from weft_rl.sampler import generate
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING

QKV = ["q_proj", "k_proj", "v_proj"]
ALL = [*QKV, "attn_out", "ff_proj", "up_proj", "ff_out"]
GIB = 2**30


def config(*argv):
    return load_run_config(argv, command="it")


def llada(lora, weights="float32", sizes=EIGHT_B):
    return ModelShape(LLADA, sizes, lora, weights, checkpointing=False, half=False)


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
    assert llada(lora).trained == trained
    assert llada(lora).count == 8_015_581_184


@pytest.mark.parametrize("targets", [QKV, ALL, ["ff_out"]])
@pytest.mark.parametrize("r", [0, 4])
def test_trained_parameters_of_a_model_that_is_built(tmp_path, targets, r):
    options = BaseConfig()
    model = fresh_model(tiny_config(options), 0)
    made = with_lora(model, LoraConfig(r, targets=targets), "x", tmp_path)
    asked = [f"cold_start.lora.r={r}", f"cold_start.lora.targets=[{','.join(targets)}]"]
    plan = make_plan(config("model=tiny", *asked), PlanConfig("cpu"), "weft")
    assert plan.trained == sum(p.numel() for p in made.parameters() if p.requires_grad)
    assert plan.total == sum(p.numel() for p in fresh_model(tiny_config(options), 0).parameters())


# Tiny and wider, deeper, with a large and a small vocabulary, long and short rows.
SHAPES = {
    "tiny": (Sizes(len(SYMBOLS), 64, 3, 4, 4, 128, 256), 32, 60),
    "deep": (Sizes(512, 64, 6, 4, 4, 128), 4, 96),
    "wide": (Sizes(64, 128, 4, 4, 4, 352), 4, 200),
    "words": (Sizes(4096, 64, 3, 4, 4, 128), 4, 96),
    "few": (Sizes(64, 64, 3, 4, 4, 128), 1, 8),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "lora", [LoraConfig(0), LoraConfig(4, targets=QKV), LoraConfig(8, 16, 0.05, ALL)]
)
def test_memory_of_a_step(shape, checkpointing, lora):
    sizes, rows, length = SHAPES[shape]
    made = LLaDAConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.num_hidden_layers,
        num_attention_heads=sizes.num_attention_heads,
        intermediate_size=sizes.intermediate_size,
        max_position_embeddings=256,
        rope=not sizes.learned_positions,
        **{"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
    )
    model = with_lora(fresh_model(made, 0), lora, "x", Path("y")).train()
    if checkpointing:
        getattr(model, f"{ACTIVATION_CHECKPOINTING}_enable")()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    x0 = torch.randint(2, sizes.vocab_size, (rows, length))
    everything, probability = torch.ones_like(x0).bool(), torch.full(x0.shape, 0.5)

    def step():
        # no name for the logits: the trainer's own is gone when it goes back
        denoising_loss(
            model(input_ids=x0).logits, x0, everything, probability, everything
        ).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the optimizer's state is made
    state = [value for values in optimizer.state.values() for value in values.values()]
    standing = sum(tensor.nbytes for tensor in [*model.parameters(), *state])
    measured = standing + allocated(step)
    network = ModelShape(LLADA, sizes, lora, "float32", checkpointing, half=False)
    planned = sum(Step(network, rows, length, length).memory().values())
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("lora", [LoraConfig(0), LoraConfig(4, targets=QKV)])
@pytest.mark.parametrize("estimator", ["", "one_step"])
def test_memory_of_a_head_in_parts(monkeypatch, lora, estimator):
    """Of a cold start's loss, or of RL's log-probabilities: 512 positions, a quarter at a time."""
    sizes, length = Sizes(4096, 32, 2, 2, 2, 64), 512
    together = length * sizes.vocab_size // 4
    for module in (head, budget):
        monkeypatch.setattr(module, "LOGITS_TOGETHER", together)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    shape = {name: getattr(sizes, name) for name in (*names, "intermediate_size")}
    special = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model = with_lora(fresh_model(LLaDAConfig(**shape, **special), 0), lora, "x", Path("y"))
    x0 = torch.randint(2, sizes.vocab_size, (1, length))

    def of_part(logits, begin):
        ids = x0[:, begin : begin + logits.shape[1]]
        places = torch.zeros(1, dtype=torch.long)
        if estimator:
            return torch.stack(token_log_probs(logits, ids, places), 2)
        return torch.nn.functional.cross_entropy(logits[0], ids[0], reduction="none")[None]

    def step():
        found = model(input_ids=x0, logit_positions=torch.arange(length), reduce=of_part).logits
        (found[..., 0] if estimator else found).sum().backward()

    measured = allocated(step)
    network = ModelShape(LLADA, sizes, lora, "float32", checkpointing=False, half=False)
    planned = Step(network, 1, length, length, entropies=bool(estimator)).memory()
    moving = sum(planned[name] for name in ("activations", "logits", "gradients"))
    assert moving == pytest.approx(measured, rel=0.1)


def test_memory_of_the_cold_starts_own_step(tmp_path):
    """WeFT's step in its trainer, the estimate pass included."""
    made = trainer(tmp_path, "sqrt_entropy", batch=8)
    made.train()
    # at its most, which is planned for: nothing but an answer, and nearly all of it masked
    made.data_collator.pad_in_answer = True
    batch = made.data_collator([replace(example, prompt_length=0) for example in examples()])
    made.times = lambda *_: torch.full((8, 1), 0.999)
    rows, length = batch["input_ids"].shape
    made.model.train()
    measured = allocated(lambda: made.training_step(made.model, dict(batch)))
    sizes = Sizes(len(SYMBOLS), 16, 1, 2, 2, 128, 256)
    network = ModelShape(LLADA, sizes, LoraConfig(), "float32", checkpointing=False, half=False)
    planned = Step(network, rows, length, length).memory()
    moving = sum(planned[name] for name in ("activations", "logits", "gradients"))
    assert moving == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(("width", "inner", "rows"), [(64, 512, 16), (256, 512, 8)])
def test_memory_of_a_samplers_forward(width, inner, rows):
    """With a vocabulary so small that the logits are less than a layer."""
    sizes = Sizes(64, width, 3, 4, 4, inner)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    shape = {name: getattr(sizes, name) for name in (*names, "intermediate_size")}
    special = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 2}
    model = fresh_model(LLaDAConfig(**shape, **special), 0)
    prompts = torch.randint(4, 64, (rows, 20))
    measured = allocated(
        lambda: generate(model, prompts, SamplerConfig(128, 32, 4, temperature=1.0))
    )
    network = ModelShape(LLADA, sizes, LoraConfig(), "float32", checkpointing=False, half=False)
    planned = Step(network, 1, 1, 1, sampled_tokens=rows * 148, sampled_logits=rows * 32)
    # a step of one row is less than all that: the sampler's is the largest moment
    assert planned.memory()["rollouts"] == pytest.approx(measured, rel=0.1)


def test_the_reference_of_a_full_fine_tune_is_a_second_copy():
    words = ("model=llada_8b", "rl.lora.r=0")
    with_kl, without = (
        sum(make_plan(config(*words, f"rl.kl_coef={kl}"), PlanConfig(), "rl").memory.values())
        for kl in (0.04, 0)
    )
    assert with_kl - without == 4 * 8_015_581_184
    # with an adapter it is the start itself
    lora = [
        make_plan(config("model=llada_8b", f"rl.kl_coef={kl}"), PlanConfig(), "rl").memory
        for kl in (0.04, 0)
    ]
    assert lora[0] == lora[1]


def test_what_gains_nothing_is_no_cure():
    options = PlanConfig(hardware="rtx4090", memory_gib=20)
    lines = cures_of(config("model=llada_8b"), options, "rl", 20 * GIB)
    # the preset's weights are bfloat16 already, and its layers computed twice
    assert [line.strip().split(":")[0] for line in lines[1:]] == [
        "memory.quantization=nf4 (a run for each stage)"
    ]


def test_kept_estimates_cost_a_part_of_fresh_ones():
    words = ("preset=paper", "cold_start.entropy_pass.refresh_every=4")
    kept = (*words, "cold_start.entropy_pass.rates=cached")
    sft, fresh = (make_plan(config(*words), PlanConfig(), stage) for stage in ("sft", "weft"))
    cached = make_plan(config(*kept), PlanConfig(), "weft")
    assert fresh.seconds > 1.2 * sft.seconds
    assert cached.seconds - sft.seconds == pytest.approx((fresh.seconds - sft.seconds) / 4)


def test_operations_by_hand():
    sizes = Sizes(10, 4, 2, 2, 2, 6)
    network = llada(LoraConfig(), sizes=sizes)
    # two layers of 4 * 4^2 + 3 * 4 * 6 = 136 weights, two operations each, for 5 tokens;
    # 4 * 2 layers * 5^2 pairs * width 4; the head for 3 tokens
    assert forward_operations(network, 5, 3) == 2 * 5 * 272 + 4 * 2 * 25 * 4 + 2 * 3 * 10 * 4
    assert backward_share(network) == 2
    assert backward_share(replace(network, lora=LoraConfig(2))) == 1
    assert backward_share(replace(network, checkpointing=True)) == 3


def test_forwards_of_an_rl_step():
    words = (
        "model=llada_8b",
        "memory.gradient_checkpointing=false",
        "rl.masks.share_group_masks=false",
    )
    plan = make_plan(config(*words), PlanConfig(), "rl")
    # 128 denoising steps serve mu = 8; of each of 16 micro-batches old (but not of the first pass),
    # reference and new log-probabilities, and the way back
    assert plan.forwards == 128 / 8 + 16 * (7 / 8 + 1 + 1 + 1)
    assert plan.tokens == 96 * (200 + 256)
    assert plan.steps == 3800
    # as computed by hand for one row: 2 * 456 * 6,979,321,856 weights in the layers, attention,
    # and the head's 256 or, in denoising, 32 positions; on the way back, in parts, once more
    rows, layers, attention = 96, 2 * 456 * 6_979_321_856, 4 * 32 * 456**2 * 4096
    head = 2 * 126464 * 4096
    whole = layers + attention + 256 * head
    operations = rows * (16 * (layers + attention + 32 * head) + 3.875 * whole + 256 * head)
    assert plan.seconds == pytest.approx(operations / (989e12 * 0.4))


def test_steps_of_a_cold_start():
    plan = make_plan(config("model=llada_8b"), PlanConfig(devices=4, traces=1001), "weft")
    assert plan.steps == math.ceil(1001 / 16) * 20


def test_parts_that_devices_share():
    run = config("model=llada_8b", "memory.dtype=float32")
    one = make_plan(run, PlanConfig(), "weft").memory
    two = make_plan(run, PlanConfig(devices=8, sharding="zero2"), "weft").memory
    three = make_plan(run, PlanConfig(devices=8, sharding="zero3"), "weft").memory
    assert (two["weights"], three["weights"]) == (one["weights"], one["weights"] / 8)
    assert (two["optimizer"], three["optimizer"]) == (one["optimizer"] / 8, one["optimizer"] / 8)
    assert (two["activations"], three["activations"]) == (one["activations"], one["activations"])
    for stage in ("weft", "rl"):
        same = [
            make_plan(run, PlanConfig(devices=8, sharding=sharding), stage)
            for sharding in ("zero3", "fsdp2")
        ]
        assert same[0] == same[1]


def test_a_rollout_has_all_weights_on_every_device():
    run = config("model=llada_8b", "memory.dtype=bfloat16")
    parts = make_plan(run, PlanConfig(devices=8, sharding="zero3"), "rl").memory
    whole = make_plan(run, PlanConfig(devices=8), "rl").memory
    assert parts["weights"] + parts["rollouts"] > whole["weights"] > parts["rollouts"] - 2 * GIB


def test_weights_by_their_kind():
    lora = LoraConfig(128, targets=QKV)
    sizes = {kind: llada(lora, kind).weight_bytes() for kind in ("float32", "bfloat16", "nf4")}
    assert sizes["float32"] == 4 * 8_015_581_184
    assert sizes["bfloat16"] == 2 * 8_015_581_184
    # 6.98e9 weights at 4.127 bits, the other 1.04e9 in 16
    assert sizes["nf4"] == pytest.approx(6.979e9 * 4.127 / 8 + 1.036e9 * 2, rel=1e-3)


def test_what_to_change_until_it_fits():
    run = config("model=llada_8b", "memory.gradient_checkpointing=false", "memory.dtype=float32")
    lines = cures_of(run, PlanConfig("rtx4090"), "weft", 17e9)
    assert lines[0] == "weft does not fit 16 GiB. One after the other:"
    options = [line.split(":")[0].strip() for line in lines[1:]]
    assert options[0] == "memory.gradient_checkpointing=true"
    assert options[-1] == "memory.quantization=nf4 (a run for each stage)"
    totals = [float(line.split()[-2]) for line in lines[1:]]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] * GIB <= 17e9 < totals[-2] * GIB
    # what the last line promises is what its options plan
    changed = config(
        *("model=llada_8b", "memory.gradient_checkpointing=true", "memory.quantization=nf4")
    )
    memory = make_plan(changed, PlanConfig("rtx4090"), "weft").memory
    assert sum(memory.values()) / GIB == pytest.approx(totals[-1], abs=0.05)
    assert cures_of(run, PlanConfig("rtx4090"), "weft", 1e9)[-1].startswith(
        "  devices=8 sharding=ze"
    )
    whole = config("model=llada_8b", "rl.lora.r=0", "memory.dtype=float32", "stages=[rl]")
    text = "\n".join(cures_of(whole, PlanConfig("rtx4090"), "rl", 1e9))
    assert "rl.lora.r=128: " in text


def test_a_folder_is_planned_for_without_loading_it(tmp_path):
    folder, tensors = llada_folder(tmp_path / "a")
    plans = make_plans(config(f"model={folder}", "stages=[sft]"), PlanConfig())
    assert plans[0].total == sum(tensor.numel() for tensor in tensors.values())
    for path in folder.glob("*.safetensors"):
        path.unlink()
    assert make_plans(config(f"model={folder}", "stages=[sft]"), PlanConfig()) == plans
    assert make_plans(config("model=dream_7b", "stages=[sft]"), PlanConfig())[
        0
    ].total == DREAM.count(DREAM.published_sizes)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["model=/nowhere"], "/nowhere/config.json: cannot be read"),
        (["model=llada_8b", "cold_start.lora.targets=[o_proj]"], "no module is called o_proj"),
        (["model=llada_8b", "hardware=abacus"], "hardware=abacus: must be one of h100"),
        (["model=llada_8b", "cold_strat.epochs=3"], "no such option; did you mean"),
    ],
)
def test_mistakes(argv, message):
    with pytest.raises(UserError, match=message):
        main(argv)


def test_the_command_without_torch_in_a_second():
    done = ask("plan", "model=llada_8b", "hardware=rtx4090", "stages=[weft]", "seed=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "8,015,581,184" in done.stdout
    assert "100,663,296" in done.stdout
