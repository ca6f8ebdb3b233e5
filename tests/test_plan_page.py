"""docs/scale.md says what `plan` does: its table, its planned steps, its list of changes."""

from dataclasses import replace
from pathlib import Path

import pytest

from weft_rl.config.load import load_run_config
from weft_rl.plan.command import cures_of, make_plan
from weft_rl.plan.config import PlanConfig

PAGE = (Path(__file__).parents[1] / "docs/scale.md").read_text()
GIB = 2**30
WHOLE = ("cold_start.lora.r=0", "rl.lora.r=0")


def config(*argv):
    return load_run_config(argv, command="it")


def figure(number):
    """As the page rounds hours."""
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


@pytest.mark.parametrize(
    ("head", "options", "words"),
    [
        ("1 x RTX 4090, 24 GB | nf4", PlanConfig("rtx4090"), []),
        ("1 x RTX 4090, 24 GB | bfloat16", PlanConfig("rtx4090"), []),
        ("1 x H100, 80 GB | bfloat16", PlanConfig(), []),
        ("8 x H100, DDP | bfloat16", PlanConfig(devices=8), []),
        (
            "8 x H100, FSDP2 or ZeRO-3 | bfloat16",
            PlanConfig(devices=8, sharding="zero3"),
            [],
        ),
        (
            "8 x H100, FSDP2 or ZeRO-3, all weights trained | float32",
            PlanConfig(devices=8, sharding="fsdp2"),
            WHOLE,
        ),
    ],
)
def test_the_pages_table(head, options, words):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {head} |"))
    told = [cell.strip() for cell in row.strip("|").split("|")][2:]
    made = config("model=llada_8b", f"memory.dtype={head.split()[-1]}", *words)
    plans = [make_plan(made, options, stage) for stage in ("weft", "rl")]
    memory = [f"{sum(plan.memory.values()) / GIB:.1f}" for plan in plans]
    hours = [plan.seconds * plan.steps / 3600 for plan in plans]
    each = [f"{figure(options.devices * hour)}" for hour in hours]
    if options.devices > 1:
        each = [f"{all_of} ({hour:.1f} h)" for all_of, hour in zip(each, hours, strict=True)]
    assert [cell.split()[0] for cell in told[:2]] == memory
    assert told[2:4] == each
    assert {f"{options.devices * plan.evaluation / 3600:.1f}" for plan in plans} == {told[4]}


def test_the_pages_steps_of_the_small_network():
    made = config("model=small", "sampler.gen_length=128", "sampler.steps=64")
    seconds = [make_plan(made, PlanConfig(), stage).seconds for stage in ("base", "weft", "rl")]
    assert f"(planned: {', '.join(f'{each:.3f}' for each in seconds)})" in " ".join(PAGE.split())


@pytest.mark.parametrize(
    ("stage", "key", "rows"),
    [
        ("weft", "cold_start", "cold_start.batch_size"),
        ("rl", "rl", "rl.optimizer.micro_batch_size"),
    ],
)
@pytest.mark.parametrize(("sharding", "last"), [("none", "zero3"), ("fsdp2", "fsdp2")])
def test_every_cure_in_the_order_of_the_page(stage, key, rows, sharding, last):
    words = (
        f"stages=[{stage}]",
        f"{key}.lora.r=0",
        f"{rows}=3",
        "rl.masks.share_group_masks=false",
    )
    run = config("model=llada_8b", *words, *("memory.dtype=float32",) * (stage == "weft"))
    run = replace(run, memory=replace(run.memory, gradient_checkpointing=False))
    lines = cures_of(run, PlanConfig("rtx4090", sharding=sharding), stage, 2e9)
    names = [
        "memory.gradient_checkpointing=true",
        f"{rows}=1",
        f"{key}.lora.r=128",
        *["memory.dtype=bfloat16"] * (stage == "weft"),  # auto's, once there is an adapter
        "memory.quantization=nf4",
        f"devices=8 sharding={last}",
    ]
    assert [line.split(":")[0].strip() for line in lines[1:]] == names
    page = PAGE.partition("`plan` lists what to change")[2]
    told = [f"`{names[0]}`", "smaller micro-batches", "`cold_start.lora.r=128` or `rl.lora.r=128`"]
    places = [page.index(each) for each in (*told, "`memory.dtype=bfloat16`", "`nf4`")]
    assert places == sorted(places)
