"""The plan of a network that is pretrained here: its base, and its stages beside a GPU's times."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import weft_rl.stages.pretrain
from weft_rl.config.load import load_run_config
from weft_rl.config.model import LoraConfig
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.plan.command import cures_of, main, make_plan, make_plans, network_of
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.memory import backward_share
from weft_rl.stages.context import StageContext
from weft_rl.trainers.infra.compat import ACTIVATION_CHECKPOINTING

MEASURED = json.loads((Path(__file__).parents[1] / "benchmarks/results/small.json").read_text())
# The preset as it was when it was measured, with a longer canvas.
THEN = ("model=small", "sampler.gen_length=128", "sampler.steps=64")


def config(*argv):
    return load_run_config(argv, command="it")


@pytest.mark.parametrize("stage", ["base", "weft", "rl"])
def test_steps_of_the_small_network_on_a_gpu(stage):
    """The launch floor is one number for all three."""
    plan = make_plan(config(*THEN), PlanConfig("h100"), stage)
    assert 1 / plan.seconds == pytest.approx(MEASURED["stages"][stage]["steps_per_s"], rel=0.08)


class Launches(TorchDispatchMode):
    """Counts what is launched: every operation that PyTorch dispatches."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_way_back_is_launched_like_as_many_forwards(checkpointing):
    """Of a layer in mixed precision; all weights trained. Computing it twice detaches its input
    and outputs as well, which makes 4.6 of 4; without that it is 2.8 of 3."""
    ids, counts = torch.randint(4, 64, (2, 8)), Counter()
    for layers in (1, 2):
        shape = LLaDAConfig(
            vocab_size=64,
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            **{"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        )
        model = fresh_model(shape, 0).train()
        if checkpointing:
            getattr(model, f"{ACTIVATION_CHECKPOINTING}_enable")()
        for kind in ("forward", "both ways"):
            trained = kind == "both ways"
            with (
                Launches() as launches,
                torch.set_grad_enabled(trained),
                torch.autocast("cpu", torch.bfloat16),
            ):
                loss = model(input_ids=ids).logits.float().sum()
                if trained:
                    loss.backward()
            # what a second layer adds
            counts[kind] += launches.count * (1 if layers == 2 else -1)
    given = f"memory.gradient_checkpointing={str(checkpointing).lower()}"
    network = network_of(config(*THEN, given), LoraConfig(0), half=True)
    planned = 1 + backward_share(network)
    assert counts["both ways"] / counts["forward"] == pytest.approx(planned, rel=0.15)


def test_the_base_that_is_planned_is_the_stages(tmp_path, monkeypatch):
    made = config("model=tiny", "base.examples=6", "base.batch_size=4", "base.max_steps=3")
    caught = []
    monkeypatch.setattr(weft_rl.stages.pretrain, "train", lambda trainer, _: caught.append(trainer))
    weft_rl.stages.pretrain._pretrain(StageContext(made, tmp_path, "base", ""))
    (trainer,) = caught
    rows = [(row.prompt_length, len(row.ids)) for row in trainer.train_dataset]
    longest = max(prompt for prompt, _ in rows)
    assert {length - prompt for prompt, length in rows} == {made.sampler.gen_length}
    plan = make_plan(made, PlanConfig("cpu", prompt_length=longest), "base")
    weights = [each for each in trainer.model.parameters() if each.requires_grad]
    assert plan.trained == plan.total == sum(each.numel() for each in weights)
    assert plan.memory["weights"] == sum(each.nbytes for each in weights)
    assert plan.steps == trainer.args.max_steps == 3
    batch = trainer.data_collator(trainer.train_dataset)["input_ids"]
    assert plan.tokens == trainer.args.per_device_train_batch_size * batch.shape[1]


def test_operations_of_a_base_by_hand():
    shape = ("base.hidden_size=16", "base.num_hidden_layers=2", "base.intermediate_size=32")
    made = config("model=small", *shape, "base.batch_size=8", "base.num_attention_heads=2")
    plan = make_plan(made, PlanConfig("cpu", prompt_length=104), "base")
    # 104 + 96 tokens; there, and twice as much back; a half of the 96 has logits, of 1,024 words
    layers = 2 * (4 * 16 * 16 + 3 * 16 * 32)
    one = 2 * 200 * layers + 4 * 2 * 200 * 200 * 16 + 2 * 48 * 1024 * 16
    assert plan.seconds == pytest.approx(3 * 8 * one / (0.1e12 * 0.4))
    assert plan.forwards == 3


def test_a_base_is_planned_where_a_run_trains_one(capsys):
    for words in (["stages=[weft,rl]"], ["stages=[weft,base,rl]"]):
        plans = make_plans(config("model=tiny", *words), PlanConfig("cpu"))
        assert [plan.stage for plan in plans] == ["base", "weft", "rl"]
        assert plans[0].hours > plans[0].seconds * 400 / 3600  # its evaluation as well
    for stage in ("base", "eval"):
        main(["model=tiny", "hardware=cpu", f"stages=[{stage}]"])
        printed = capsys.readouterr().out
        assert "base: counted as trained here" in printed
        assert "not planned" not in printed
    plans = make_plans(config("model=llada_8b"), PlanConfig())
    assert [plan.stage for plan in plans] == ["weft", "rl"]


def test_a_base_is_one_process_in_float32():
    words = ("model=small", "cold_start.lora.r=8", "rl.lora.r=8", "memory.dtype=bfloat16")
    one = make_plan(config("model=small"), PlanConfig(), "base")
    assert make_plan(config(*words), PlanConfig(devices=4, sharding="zero3"), "base") == one


def test_what_to_change_until_a_base_fits():
    lines = cures_of(config("model=small"), PlanConfig("h100"), "base", 1e9)
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "memory.gradient_checkpointing=true",
        "base.batch_size=1",
    ]
