"""The number of processes changes nothing: two of them by torchrun on CPU, against this one."""

import json
import time

import pytest
import rl_processes
import torch
from rl_processes import RUNS, results
from torch.testing import assert_close
from torchrun import launch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    status, complaints = launch(rl_processes.__file__, folder, 2)
    assert status == 0, complaints[-3000:]
    return results(folder / "one", 1), torch.load(folder / "of-2.pt", weights_only=True)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_learn_what_one_does(both, name):
    one, two = (found[name] for found in both)
    assert len(one["logs"]) == 6
    assert {"grad_norm", "entropy", "reward_std", "parsable_share"} <= set(one["logs"][0])
    assert_close(two["logs"], one["logs"], atol=1e-6, rtol=1e-5)
    assert_close(one["gradients"], two["gradients"], atol=1e-6, rtol=1e-5)
    assert_close(one["weights"], two["weights"], atol=1e-6, rtol=1e-5)
    if name == "no reference":
        assert any(row["clip_ratio/region_mean"] > 0 for row in one["logs"])


def rows_of(out, name="metrics"):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def test_one_process_of_a_run_writes(start, tmp_path):
    """The pipeline on two processes: one line a step, one evaluation, and it ends well."""
    out = tmp_path / "run"
    words = f"preset=tiny stages=[rl] model={start} out={out} "
    words += "rl.num_prompts=2 rl.num_generations=2 rl.max_steps=3 eval.num_records=4 "
    words += "sampler.steps=4 rl.watch.evaluate_steps=2 rl.watch.evaluate_records=3"
    status, complaints = launch("-m", "weft_rl.pipeline", *words.split())
    assert status == 0, complaints[-3000:]
    assert [row["step"] for row in rows_of(out) if "loss" in row] == [1, 2, 3]
    assert [row["held_out/n"] for row in rows_of(out) if "held_out/n" in row] == [3]
    assert len(rows_of(out, "completions/eval-rl")) == 4
    assert json.loads((out / "eval.json").read_text())["rl"]["sudoku"]["n"] == 4


QUICK = "base.max_steps=3 base.batch_size=8 base.examples=40 rl.num_prompts=2 rl.num_generations=2 "
QUICK += "rl.max_steps=1 rl.num_iterations=1 eval.num_records=2 sampler.steps=4 stages=[rl]"


def test_the_first_process_pretrains_the_base(tmp_path, monkeypatch):
    """The others wait for it, and it is the base of one process."""
    runs = {}
    for name in ("one", "two"):
        monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / f"cache-{name}"))
        words = QUICK.replace("[rl]", "[base]" if name == "one" else "[rl]").split()
        words = ["-m", "weft_rl.pipeline", *words, f"out={tmp_path / name}"]
        status, complaints = launch(*words, processes=1 if name == "one" else 2)
        assert status == 0, complaints
        runs[name] = (tmp_path / name / "checkpoints/base/step-3/model.safetensors").read_bytes()
    assert runs["one"] == runs["two"]
    assert set(json.loads((tmp_path / "two/stages.json").read_text())) == {"base", "rl"}
    rows = rows_of(tmp_path / "two")
    assert [row["step"] for row in rows if row["stage"] == "base"] == [3]


def test_a_base_that_fails_ends_all(tmp_path, monkeypatch):
    """Its cache is a file, which no folder can be made in."""
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache" / "in"))
    begun = time.monotonic()
    status, _ = launch("-m", "weft_rl.pipeline", *QUICK.split(), f"out={tmp_path / 'run'}")
    assert status != 0
    assert time.monotonic() - begun < 90
    assert not (tmp_path / "run" / "stages.json").exists()
