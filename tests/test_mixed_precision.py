"""memory.mixed_precision: bfloat16 matmuls change rounding only, and weights stay in float32."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from weft_rl.pipeline.run import main
from weft_rl.runs.folder import newest_checkpoint

FEW = [
    *("model=tiny", "base.hidden_size=32", "base.num_hidden_layers=2", "base.batch_size=4"),
    *("base.num_attention_heads=2", "base.intermediate_size=64", "base.examples=16"),
    *("base.max_steps=3", "base.logging_steps=1", "cold_start.records=8", "cold_start.epochs=1"),
    *("cold_start.batch_size=4", "cold_start.logging_steps=1", "rl.num_prompts=2"),
    *("rl.num_generations=2", "rl.num_iterations=2", "rl.max_steps=2", "eval.after_each=false"),
    *("sampler.steps=6", "memory.gradient_checkpointing=true"),
]


@pytest.mark.slow
def test_bf16_matmuls(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))

    def run(name, *words):
        assert main([*FEW, *words, f"out={tmp_path / name}"]) == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [row["loss"] for row in map(json.loads, lines) if row["stage"] != "rl"]

    losses, weights = {}, {}
    for precision in ("no", "bf16"):
        words = ("stages=[sft,rl]", f"memory.mixed_precision={precision}")
        losses[precision] = run(precision, *words)
        for stage in ("base", "sft", "rl"):
            path = newest_checkpoint(tmp_path / precision, stage) / "model.safetensors"
            weights[precision, stage] = load_file(path)
    # the option overrides the launcher's environment variable, which is followed without one
    for number, (words, like) in enumerate(((["memory.mixed_precision=no"], "no"), ([], "bf16"))):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        assert run(f"launched-{number}", "stages=[sft]", *words) == losses[like]
    # one base for each precision, and the same training except for rounding
    assert len(list((tmp_path / "cache").glob("base-*"))) == 2
    assert losses["no"] != losses["bf16"]
    np.testing.assert_allclose(losses["no"], losses["bf16"], rtol=0.01)
    assert {tensor.dtype for each in weights.values() for tensor in each.values()} == {
        torch.float32
    }
    for stage in ("base", "sft", "rl"):
        wide, narrow = weights["no", stage], weights["bf16", stage]
        assert any(not torch.equal(wide[name], narrow[name]) for name in wide)
