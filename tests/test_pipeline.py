"""The pipeline end to end on a few steps: its run directory, repeatability, resuming, errors."""

import json
import os
import shlex
import signal
import threading

import pytest
from pipeline_runs import SMALL, cache, metrics, status  # noqa: F401 - a fixture of all tests here
from safetensors.torch import load_file
from waiting import wait_until

from weft_rl.cli import execute
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.pipeline.run import main
from weft_rl.runs.folder import newest_checkpoint
from weft_rl.stages import STAGE_RUNNERS

pytestmark = pytest.mark.slow
COLD_START = {"loss", "grad_norm", "learning_rate", "token_entropy", "beta_ref", "mask_fraction"}
ROLLOUT = {"reward", "reward_ema", "reward_std", "rewards/cell_accuracy", "kl", "clip_ratio"}
ROLLOUT |= {"entropy", "completion_length"}


@pytest.fixture(scope="module")
def first(tmp_path_factory, cache):  # noqa: F811
    out = tmp_path_factory.mktemp("runs") / "first"
    assert status(f"out={out}") == 0
    return out


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_run_directory(first):
    for name in ("config.yaml", "metrics.jsonl", "eval.json", "curves.png", "report.html"):
        assert (first / name).stat().st_size > 0
    steps = {"base": 4, "weft": 6, "rl": 6}  # 12 records in batches of 4, twice: 6 steps
    for stage, last in steps.items():
        assert (first / "checkpoints" / stage / f"step-{last}" / "model.safetensors").exists()
    assert not list((first / "checkpoints").glob(".*"))
    rows = metrics(first)
    assert [row["stage"] for row in rows] == ["base"] * 2 + ["weft"] * 6 + ["rl"] * 6
    assert all(row.keys() >= COLD_START | {"epoch"} for row in rows if row["stage"] == "weft")
    rollouts = [row for row in rows if "reward" in row]
    assert [row["step"] for row in rollouts] == [1, 4]  # every third step samples again
    assert all(row.keys() >= ROLLOUT for row in rollouts)
    scores = json.loads((first / "eval.json").read_text())
    assert list(scores) == ["base", "weft", "rl"]
    for stage in scores.values():
        entry = stage["sudoku"]
        assert entry["n"] == 6
        assert entry["ci95"][0] <= entry["score"] <= entry["ci95"][1]
        assert {"all ones", "row filling"} <= set(entry["baselines"])
    rewards = [row["reward"] for row in rows_of(first / "completions" / "eval-rl.jsonl")]
    assert scores["rl"]["sudoku"]["score"] == pytest.approx(100 * sum(rewards) / 6, abs=0.01)


def test_the_first_evaluations_are_kept_for_the_replay(first):
    examples = json.loads((first / "completions" / "trace-rl.json").read_text())["examples"]
    rows = rows_of(first / "completions" / "eval-rl.jsonl")[:2]
    for example, row in zip(examples, rows, strict=True):
        assert example["prompt"] == row["prompt"]
        assert "".join(example["tokens"]).startswith(row["completion"][:10])
        assert min(example["opened"]) >= 1
        assert max(example["opened"]) == example["steps"]
        assert all(0 <= confidence <= 1 for confidence in example["confidences"])


def test_same_seed_same_bytes_also_after_an_interrupt(first, tmp_path):
    out = tmp_path / "stopped"

    def interrupt():
        wait_until(lambda: any((out / "checkpoints/rl").glob("step-*")))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert status(f"out={out}", "rl.save_steps=1") == 3
    thread.join()
    assert status(f"out={out}", "rl.save_steps=1") == 0
    assert metrics(out) == metrics(first)
    last = "checkpoints/rl/step-6/model.safetensors"
    for name in ("eval.json", "completions/rl.jsonl", "completions/eval-rl.jsonl", last):
        assert (out / name).read_bytes() == (first / name).read_bytes()


def test_more_stages_continue_a_run(first, tmp_path):
    out = tmp_path / "run"
    assert status("stages=[weft]", "cold_start.logging_steps=4", f"out={out}") == 0
    # the last step has a line too
    assert [row["step"] for row in metrics(out) if row["stage"] == "weft"] == [4, 6]
    assert status("stages=[weft,rl]", f"out={out}") == 0
    for stage in ("weft", "rl"):
        one, other = (newest_checkpoint(run, stage) / "model.safetensors" for run in (first, out))
        assert one.read_bytes() == other.read_bytes()
    # a finished run does nothing
    before = (out / "metrics.jsonl").read_bytes()
    assert status("stages=[weft]", f"out={out}") == 0
    assert (out / "metrics.jsonl").read_bytes() == before
    assert list(json.loads((out / "stages.json").read_text())) == ["base", "weft", "rl"]


@pytest.mark.parametrize("named", [True, False])
def test_the_command_that_resumes_can_be_pasted(tmp_path, monkeypatch, capsys, named):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "stages=[weft]", "cold_start.lora.r=2", "cold_start.lora.dropout=0.1"]
    words += ["out=a run"] if named else []

    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setitem(STAGE_RUNNERS, "weft", STAGE_RUNNERS["weft"]._replace(run=stopped))
    assert execute("weft_rl.pipeline", main, ["resume=never", *words]) == 3
    message = capsys.readouterr().err.strip()
    resume = shlex.split(message.rpartition("python -m weft_rl.pipeline ")[2])
    (out,) = (tmp_path / name for name in (["a run"] if named else os.listdir(tmp_path / "runs")))
    assert resume == (words if named else [*words, f"out=runs/{out.name}"])


def test_low_rank_adapters_through_both_stages(tmp_path):
    out = tmp_path / "lora"
    words = ["cold_start.lora.r=2", "rl.lora.r=2", "eval.after_each=false"]
    assert status(*words, f"out={out}") == 0
    for stage in ("weft", "rl"):
        last = out / "checkpoints" / stage / "step-6"
        assert not (last / "model.safetensors").exists()
        weights = load_file(last / "adapter_model.safetensors")
        # 3 layers, three targets, two matrices each; the second starts at zero
        assert len(weights) == 3 * 3 * 2
        moved = [bool(value.any()) for name, value in weights.items() if "lora_B" in name]
        # RL without any reward has no gradient
        assert all(moved) if stage == "weft" else not any(moved)
    # the reference model is the policy with its adapter disabled
    assert {row["kl"] for row in metrics(out) if "kl" in row} == {0.0}


def test_countdown_and_published_problems(tmp_path):
    out = tmp_path / "countdown"
    words = ["stages=[rl]", "task=countdown", "eval.data=published"]
    assert status(*words, f"out={out}") == 0
    scores = json.loads((out / "eval.json").read_text())
    assert [stage["countdown"]["n"] for stage in scores.values()] == [6, 6]
    assert {row["task"] for row in rows_of(out / "completions" / "rl.jsonl")} == {"countdown"}
    held_out = rows_of(out / "completions" / "eval-rl.jsonl")
    assert held_out[0]["fields"] == {"numbers": [30, 100, 93], "target": 23}


def test_every_cold_start_runs(tmp_path, first):
    out, reference = tmp_path / "all", first / "checkpoints" / "weft" / "step-6"
    stages = [stage for stage in RECIPES if stage != "weft"]
    cached = ["cold_start.entropy_pass.rates=cached", "cold_start.entropy_pass.refresh_every=2"]
    words = [f"stages=[{','.join(stages)}]", "eval.after_each=false", *cached]
    assert status(*words, f"cold_start.ref_model={reference}", f"out={out}") == 0
    rows = metrics(out)
    assert [row["step"] for row in rows if row["stage"] == "rho1"] == [1, 2, 3, 4, 5, 6]
    # the entropies of the recipes that have them
    for stage in stages:
        logged = any("token_entropy" in row for row in rows if row["stage"] == stage)
        assert logged == (RECIPES[stage].statistic == "entropy")
        assert (out / f"token_entropy-{stage}.csv").exists() == logged
        # rates that follow entropies are drawn along a few responses
        has_heatmap = "entropy" in RECIPES[stage].rates
        assert (out / f"entropy_heatmap-{stage}.json").exists() == has_heatmap
    lines = (out / "token_entropy-weft_sw.csv").read_text().splitlines()
    assert lines[0] == "id,token,count,mean_entropy"
    counts = [int(line.rsplit(",", 2)[1]) for line in lines[1:]]
    assert counts == sorted(counts, reverse=True)
