"""What a plan says of evaluations, of decoding by confidence and of further attempts at groups."""

from dataclasses import replace

import pytest
import torch

from weft_rl.config.load import load_run_config
from weft_rl.config.model import LoraConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.records import load_records
from weft_rl.data.tasks import held_out_records
from weft_rl.data.toy.vocabulary import SYMBOLS
from weft_rl.evaluation.settings import (
    PUBLISHED_RECORDS,
    Settings,
    evaluation_settings,
    most_records,
)
from weft_rl.families.base import Sizes
from weft_rl.families.llada import LLADA
from weft_rl.families.shape import ModelShape
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.plan.command import main, make_plan
from weft_rl.plan.compute import (
    Forwards,
    evaluation_forwards,
    evaluation_seconds,
    rollout,
    seconds_of,
)
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.memory import HARDWARE, forward_operations
from weft_rl.sampler import generate

SIZES = Sizes(64, 16, 1, 2, 2, 32)
NETWORK = ModelShape(LLADA, SIZES, LoraConfig(), "float32", checkpointing=False, half=False)
# on a CPU 1e11 products a second at best, of which 40 % here
PER_SECOND = 0.1e12 * 0.4


def config(*argv):
    return load_run_config(argv, command="it")


def small_model():
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"mask_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "eot_token_id": 2}
    return fresh_model(LLaDAConfig(vocab_size=64, intermediate_size=32, **shape, **special), 0)


def sent(prompts, sampler, batch_size=None):
    """Rows of each forward that the sampler makes."""
    model, rows = small_model(), []
    model.register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    generate(model, prompts, sampler, batch_size=batch_size)
    return rows


def prompts(count):
    return torch.arange(3, 3 + count * 5).view(count, 5)  # all different


def test_forwards_of_an_evaluation_are_the_samplers():
    sampler = SamplerConfig(16, 8, 8, end_tokens="never")
    rows = sent(prompts(10), sampler, batch_size=4)
    # 10 records: two batches of four and one of two, 8 steps each
    assert [rows.count(size) for size in (4, 2)] == [16, 8]
    planned = evaluation_forwards(NETWORK, sampler, 10, 4, 5)
    assert [(each.number, each.rows) for each in planned] == [(16, 4), (8, 2)]
    assert planned[0].operations == 4 * forward_operations(NETWORK, 21, 8)
    assert evaluation_forwards(NETWORK, sampler, 3, 4, 5)[0][:3] == ("rollout", 8, 3)
    assert len(evaluation_forwards(NETWORK, sampler, 8, 4, 5)) == 1


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize("rule", [{"threshold": 1.0}, {"factor": 0.0}])
def test_by_confidence_a_completion_takes_a_forward_for_each_token_at_most(rule, cache):
    """Nothing is so sure that a second token comes along, whatever `steps` says."""
    sampler = SamplerConfig(16, 8, 4, end_tokens="never", cache=cache, **rule)
    rows = sent(prompts(3), sampler)
    assert len(rows) == 16
    assert sum(each.number for each in rollout(NETWORK, sampler, 3, 5)) == 16
    free = replace(sampler, threshold=None, factor=None)
    assert len(sent(prompts(3), free)) == 4


def test_hours_of_evaluation_by_hand():
    sizes = ("base.hidden_size=16", "base.num_hidden_layers=1", "base.intermediate_size=32")
    words = ("model=tiny", "stages=[sft,rl]", "eval.num_records=10", "eval.batch_size=4", *sizes)
    cut = ("sampler.gen_length=16", "sampler.block_length=8", "sampler.steps=8")
    plan = make_plan(made := config(*words, *cut), PlanConfig("cpu", prompt_length=9), "sft")
    sizes = Sizes(len(SYMBOLS), 16, 1, 4, 4, 32, 256)
    network = replace(NETWORK, sizes=sizes)
    # 16 + 9 tokens, logits of a block; ten records, 8 steps each: 80 rows in all
    operations = 80 * forward_operations(network, 25, 8)
    # of a layer: two a weight and token, and attention's products, 4 x tokens^2 x width
    weights = 4 * 16 * 16 + 3 * 16 * 32
    assert operations == 80 * (2 * 25 * weights + 4 * 25 * 25 * 16 + 2 * 8 * len(SYMBOLS) * 16)
    assert plan.evaluation == pytest.approx(operations / PER_SECOND)
    assert plan.hours == pytest.approx((plan.seconds * plan.steps + plan.evaluation) / 3600)
    # a device's share: four of ten
    three = make_plan(made, PlanConfig("cpu", prompt_length=9, devices=3), "sft")
    assert three.evaluation == pytest.approx(0.4 * plan.evaluation)


def test_which_evaluations_a_stage_has():
    def seconds(stage, *words):
        return make_plan(config("model=tiny", *words), PlanConfig("cpu"), stage).evaluation

    once = seconds("rl")
    assert once > 0
    assert seconds("rl", "eval.after_each=false") == 0
    assert seconds("weft", "stages=[weft,eval,rl]", "eval.after_each=false") == once
    assert seconds("rl", "stages=[weft,eval,rl]", "eval.after_each=false") == 0
    # every 60 of 200 steps 64 records, a fourth of 256: three times
    watched = seconds("rl", "rl.watch.evaluate_steps=60", "rl.max_steps=200")
    assert watched == pytest.approx(once + 3 * once / 4)


def test_the_papers_evaluation_is_in_bfloat16_and_without_adapters():
    made = config("model=llada_8b", "memory.dtype=float32", "eval.num_records=1")
    wide = ModelShape(LLADA, LLADA.published_sizes, made.rl.lora, "float32", False, half=True)
    found = evaluation_seconds(made, PlanConfig(), "weft", wide)
    merged = replace(wide, lora=LoraConfig(0), weights="bfloat16")
    one = forward_operations(wide, 712, 32)
    # 256 forwards of one row, each of 22.4 ms: 0.7 a layer
    alone = seconds_of([Forwards("rollout", 256, 1, one)], merged, HARDWARE["h100"], 0.4)
    assert found == pytest.approx(alone)
    four = evaluation_seconds(made, PlanConfig(), "weft", replace(wide, weights="nf4"))
    # 128 adapted matrices, 0.6 ms each
    assert four == pytest.approx(256 * (32 * 0.7e-3 + 128 * 0.6e-3))


def test_further_attempts_are_bounded():
    words = ("model=tiny", "rl.num_iterations=4", "rl.rollout.resample=3")
    made, options = config(*words), PlanConfig("cpu")
    plan, without = make_plan(made, options, "rl"), config(*words[:2])
    assert plan[:-2] == make_plan(without, options, "rl")[:-2]
    assert make_plan(without, options, "rl").again == 0
    # 256 rows of 200 + 32 tokens, 16 forwards, shared by four steps; three times more at most
    sizes = Sizes(len(SYMBOLS), 64, 3, 4, 4, 128, 256)
    one = 16 * 256 * forward_operations(replace(NETWORK, sizes=sizes), 232, 32)
    assert plan.again == pytest.approx(3 * one / 4 / PER_SECOND)


@pytest.mark.parametrize("task", ["sudoku", "countdown"])
def test_published_records_are_as_many(task):
    assert len(load_records(task, "published")) == PUBLISHED_RECORDS[task]


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
    made = config(*words)
    assert most_records(made.task, evaluation_settings(made)) == records


def test_d1s_records_are_as_many():
    settings = Settings(SamplerConfig(8, 8, 8), "d1", "d1", None)
    assert most_records("sudoku", settings) == len(held_out_records("sudoku", None, "d1"))


def test_what_the_hours_do_not_know_is_said(capsys):
    words = ["model=tiny", "hardware=cpu", "stages=[rl]"]
    main([*words, "sampler.threshold=0.9", "rl.rollout.resample=2", "eval.after_each=false"])
    printed = capsys.readouterr().out
    assert (
        "sampler.threshold=0.9: counted is a forward for each token, a completion's most" in printed
    )
    assert "rl.rollout.resample=2: not counted; at most 0." in printed
    assert "(sampler.early_stop) take fewer forwards" in printed
    main([*words, "sampler.early_stop=false"])
    (line,) = capsys.readouterr().out.partition("┘\n")[2].splitlines()
    assert line.startswith("base: counted as trained here")
    main(["preset=paper", "stages=[sft]", "eval.data=some/set", "sampler.factor=1.0"])
    printed = capsys.readouterr().out
    assert "eval.data=some/set has is not known, set eval.num_records" in printed
    assert "factor" not in printed  # the paper's sampler has none
