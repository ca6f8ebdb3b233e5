"""The number of processes changes nothing: two of them by torchrun on CPU, against this one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rl_processes import RUNS, results
from rl_trainer import small_model
from torch.testing import assert_close

from weft_rl.models.toy import tiny_tokenizer

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def torchrun(*words):
    command = [sys.executable, "-m", "torch.distributed.run"]
    # any port that is free: another worker may run this file's tests as well
    command += ["--standalone", "--nproc_per_node=2"]
    paths = os.pathsep.join(
        [str(HERE.parent), str(HERE / "helpers"), os.environ.get("PYTHONPATH", "")]
    )
    return subprocess.run(
        [*command, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    done = torchrun(str(HERE / "helpers/rl_processes.py"), str(folder), "2")
    assert done.returncode == 0, done.stderr[-3000:]
    return results(folder / "one", 1), torch.load(folder / "of-2.pt", weights_only=True)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_learn_what_one_does(both, name):
    one, two = (found[name] for found in both)
    assert len(one["logs"]) == 6
    assert {"grad_norm", "entropy", "reward_std", "parsable_share"} <= set(one["logs"][0])
    assert_close(two["logs"], one["logs"], atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(one["gradients"], two["gradients"], strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, other, atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(one["weights"], two["weights"], strict=True):
        assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_clip_is_reached(both):
    assert any(row["clip_ratio/region_mean"] > 0 for row in both[0]["no reference"]["logs"])


def test_one_process_of_a_run_writes(tmp_path):
    """The pipeline on two processes: one line a step, one evaluation, and it ends well."""
    small_model().save_pretrained(tmp_path / "start")
    tiny_tokenizer().save_pretrained(tmp_path / "start")
    words = f"preset=tiny stages=[rl] model={tmp_path / 'start'} out={tmp_path / 'run'} "
    words += "rl.num_prompts=2 rl.num_generations=2 rl.max_steps=3 eval.num_records=4 "
    words += "sampler.steps=4 rl.watch.evaluate_steps=2 rl.watch.evaluate_records=3"
    done = torchrun("-m", "weft_rl.pipeline", *words.split())
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert [row["held_out/n"] for row in rows if "held_out/n" in row] == [3]
    assert len((tmp_path / "run/completions/eval-rl.jsonl").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "run/eval.json").read_text())["rl"]["sudoku"]["n"] == 4


QUICK = "base.max_steps=3 base.batch_size=8 base.examples=40 rl.num_prompts=2 rl.num_generations=2 "
QUICK += "rl.max_steps=1 rl.num_iterations=1 eval.num_records=2 sampler.steps=4 stages=[rl]"


def test_the_first_process_pretrains_the_base(tmp_path, monkeypatch):
    """The others wait for it, and it is the base of one process."""
    runs = {}
    for name in ("one", "two"):
        monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / f"cache-{name}"))
        words = ["-m", "weft_rl.pipeline", *QUICK.split(), f"out={tmp_path / name}"]
        if name == "one":
            words.append("stages=[base]")
            words.remove("stages=[rl]")
            done = subprocess.run(
                [sys.executable, *words],
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)},
                check=False,
            )
        else:
            done = torchrun(*words)
        assert done.returncode == 0, done.stderr
        runs[name] = (tmp_path / name / "checkpoints/base/step-3/model.safetensors").read_bytes()
    assert runs["one"] == runs["two"]
    assert set(json.loads((tmp_path / "two/stages.json").read_text())) == {"base", "rl"}
    rows = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["stage"] == "base"] == [3]


def test_a_base_that_fails_ends_all(tmp_path, monkeypatch):
    """Its cache is a file, which no folder can be made in."""
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache" / "in"))
    begun = time.monotonic()
    done = torchrun("-m", "weft_rl.pipeline", *QUICK.split(), f"out={tmp_path / 'run'}")
    assert done.returncode != 0
    assert time.monotonic() - begun < 90
    assert not (tmp_path / "run" / "stages.json").exists()
