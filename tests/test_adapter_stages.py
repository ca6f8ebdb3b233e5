"""RL on a cold start's adapter: where it starts from, and what its KL term refers to."""

import json

import pytest

from weft_rl.pipeline.run import main

SMALL = [
    *("base.max_steps=20", "base.batch_size=8", "base.examples=40"),
    *("cold_start.records=8", "cold_start.epochs=4", "cold_start.batch_size=4"),
    *("cold_start.learning_rate=1e-2", "cold_start.lora.r=4", "eval.num_records=2"),
    *("rl.num_prompts=2", "rl.num_generations=2", "rl.num_iterations=2", "rl.max_steps=2"),
    *("rl.kl_coef=0.1", "rl.watch.logging_steps=1", "rl.lora.r=4", "sampler.steps=4"),
    *("device=cpu", "preset=tiny"),
]


def first_steps(out):
    """The rollout's completions and rewards, and what RL's first step measured."""
    rows = [json.loads(line) for line in (out / "completions/rl.jsonl").read_text().splitlines()]
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    step = next(row for row in metrics if row["stage"] == "rl" and row["step"] == 1)
    names = ("reward", "kl", "entropy")
    return [(row["completion"], row["reward"]) for row in rows], [step[name] for name in names]


@pytest.mark.slow
def test_rl_starts_from_the_adapted_model_and_refers_to_it(tmp_path, monkeypatch):
    """As a stage, from the adapter's checkpoint, and from the same weights merged by convert."""
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    one = tmp_path / "one"
    assert main(["stages=[weft,rl]", *SMALL, f"out={one}"]) == 0
    completions, (reward, kl, entropy) = first_steps(one)
    assert kl == 0
    (adapter,) = (one / "checkpoints/weft").glob("step-*")
    (base,) = (one / "checkpoints/base").glob("step-*")
    for model, same in ((adapter, True), (base, False)):
        out = tmp_path / f"from-{model.parent.name}"
        assert main(["stages=[rl]", *SMALL, f"model={model}", f"out={out}"]) == 0
        assert (first_steps(out)[0] == completions) == same
        assert first_steps(out)[1][1] == 0
        assert (first_steps(out)[1] == pytest.approx([reward, kl, entropy], rel=1e-5)) == same
