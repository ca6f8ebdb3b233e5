"""The pipeline end to end on a few steps: its run folder, its repeatability, its refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from safetensors.torch import load_file

from weft_rl.cli import execute
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.pipeline.run import main

SMALL = [
    "base.max_steps=4",
    "base.batch_size=8",
    "base.examples=40",
    "base.logging_steps=2",
    "cold_start.records=12",
    "cold_start.epochs=2",
    "cold_start.batch_size=4",
    "cold_start.logging_steps=1",
    "rl.num_prompts=2",
    "rl.num_generations=2",
    "rl.num_iterations=3",
    "rl.max_steps=6",
    "rl.save_steps=4",
    "eval.num_records=6",
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """An empty cache, as on a fresh machine."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("WEFT_RL_CACHE")
    os.environ["WEFT_RL_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["WEFT_RL_CACHE"]
    else:
        os.environ["WEFT_RL_CACHE"] = before


@pytest.fixture(scope="module")
def first(tmp_path_factory, cache):
    """A finished run; the cache held no base when it began."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main([*SMALL, f"out={out}"]) == 0
    return out


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time_s"} for row in rows]


def status(*arguments: str) -> int:
    return execute("weft_rl.pipeline", main, [*SMALL, *arguments])


def test_the_run_folder_holds_what_it_promises(first):
    for name in ("config.yaml", "metrics.jsonl", "eval.json", "curves.png", "report.html"):
        assert (first / name).stat().st_size > 0
    steps = {"base": 4, "weft": 6, "rl": 6}  # 12 records in batches of 4, twice over: 6 steps
    for stage, last in steps.items():
        assert (first / "checkpoints" / stage / f"step-{last}" / "model.safetensors").exists()
        assert not list((first / "checkpoints").glob(".*"))
    rows = metrics(first)
    assert [row["stage"] for row in rows] == ["base"] * 2 + ["weft"] * 6 + ["rl"] * 6
    weft = [row for row in rows if row["stage"] == "weft"]
    wanted = [
        "loss",
        "grad_norm",
        "learning_rate",
        "token_entropy",
        "beta_ref",
        "mask_fraction",
        "epoch",
    ]
    assert all(set(wanted) <= set(row) for row in weft)
    rollouts = [row for row in rows if "reward" in row]
    assert [row["step"] for row in rollouts] == [1, 4]  # every third step samples anew
    wanted = "reward_ema reward_std rewards/cell_accuracy kl clip_ratio entropy completion_length"
    assert all(set(wanted.split()) <= set(row) for row in rollouts)


def test_scores_have_intervals_and_baselines_stand_beside_them(first):
    scores = json.loads((first / "eval.json").read_text())
    assert list(scores) == ["base", "weft", "rl"]
    for stage in scores.values():
        entry = stage["sudoku"]
        assert entry["n"] == 6
        assert entry["ci95"][0] <= entry["score"] <= entry["ci95"][1]
        assert {"all ones", "row filling"} <= set(entry["baselines"])
    rows = (first / "completions" / "eval-rl.jsonl").read_text().splitlines()
    mean = sum(json.loads(row)["reward"] for row in rows) / 6
    assert scores["rl"]["sudoku"]["score"] == pytest.approx(100 * mean, abs=0.01)


def test_the_first_evaluations_can_be_played_back(first):
    kept = json.loads((first / "completions" / "trace-rl.json").read_text())
    rows = [
        json.loads(line)
        for line in (first / "completions" / "eval-rl.jsonl").read_text().splitlines()[:2]
    ]
    assert len(kept["examples"]) == 2
    for played, row in zip(kept["examples"], rows, strict=True):
        assert played["prompt"] == row["prompt"]
        assert "".join(played["tokens"]).startswith(row["completion"][:10])
        assert min(played["opened"]) >= 1
        assert max(played["opened"]) == played["steps"]
        assert all(0 <= confidence <= 1 for confidence in played["confidences"])
    assert "Denoising, step by step" in (first / "report.html").read_text()
    assert "Entropy over a response" in (first / "report.html").read_text()


def test_the_report_loads_nothing_from_elsewhere(first):
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(v for k, v in attrs if k in ("src", "href") and v and "://" in v)

    Links().feed((first / "report.html").read_text())
    assert found == []


def test_same_seed_same_bytes_whether_or_not_the_base_was_cached(first, tmp_path):
    out = tmp_path / "again"
    assert main([*SMALL, f"out={out}"]) == 0
    assert metrics(out) == metrics(first)
    for name in ("eval.json", "completions/rl.jsonl", "completions/eval-rl.jsonl"):
        assert (out / name).read_bytes() == (first / name).read_bytes()
    last = "checkpoints/rl/step-6/model.safetensors"
    assert (out / last).read_bytes() == (first / last).read_bytes()


def test_another_seed_is_another_run(first, tmp_path):
    out = tmp_path / "other"
    assert main([*SMALL, "seed=1", f"out={out}"]) == 0
    other = [row["loss"] for row in metrics(out) if row["stage"] == "weft"]
    assert other != [row["loss"] for row in metrics(first) if row["stage"] == "weft"]


def test_a_finished_run_is_not_run_again(first):
    before = (first / "metrics.jsonl").read_bytes()
    assert main([*SMALL, f"out={first}"]) == 0
    assert (first / "metrics.jsonl").read_bytes() == before


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(first, tmp_path):
    """SIGINT in the middle of a rollout's passes; the same command again; equal bytes."""
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "weft_rl.pipeline", *SMALL, f"out={out}"]
    # one step's checkpoint is on disk while the next is computed
    command[command.index("rl.save_steps=4")] = "rl.save_steps=1"
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "rl" / "step-1").exists() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 3
    assert f"out={out}" in errors.decode().splitlines()[-1]
    assert main(command[3:]) == 0
    assert metrics(out) == metrics(first)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rl.max_step=3"], "rl.max_steps"),
        (["rl.max_steps=many"], "rl.max_steps=many"),
        (["stages=[weft,fly]"], "fly"),
        (["model=./nowhere", "preset=tiny", "stages=[rl]"], "model=./nowhere"),
        (["sampler.steps=45"], "sampler.steps=45"),
        (["data=missing.jsonl"], "missing.jsonl"),
        (["eval.data=missing.csv"], "missing.csv"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, said, tmp_path, capsys):
    out = tmp_path / "never"
    assert status(*arguments, f"out={out}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert not out.exists()


def test_a_malformed_record_is_named_by_file_and_line(tmp_path, capsys):
    data = tmp_path / "traces.jsonl"
    good = {"question": "q", "attempt": "a", "thinking_trajectories": ["t"]}
    data.write_text(json.dumps(good) + "\n{not json\n")
    assert status(f"data={data}", f"out={tmp_path / 'never'}") == 2
    assert f"{data}:2" in capsys.readouterr().err


def test_a_folder_of_another_configuration_is_refused(first, capsys):
    before = (first / "config.yaml").read_bytes()
    assert status("rl.learning_rate=0.5", f"out={first}") == 2
    assert "rl.learning_rate" in capsys.readouterr().err
    assert (first / "config.yaml").read_bytes() == before


def test_a_file_in_the_way_is_refused(tmp_path, capsys):
    out = tmp_path / "file"
    out.write_text("mine")
    assert status(f"out={out}") == 2
    assert f"out={out}" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_folder_that_the_system_refuses(capsys):
    """/proc takes no folders, not even root's."""
    assert status("out=/proc/weft-rl/run") == 2
    error = capsys.readouterr().err
    assert "out=/proc/weft-rl/run: cannot be written" in error
    assert error.count("\n") == 1


def test_low_rank_adapters_through_both_stages(tmp_path):
    out, adapters = tmp_path / "lora", ["cold_start.lora.r=2", "rl.lora.r=2"]
    assert main([*SMALL, *adapters, f"out={out}"]) == 0
    for stage in ("weft", "rl"):
        last = out / "checkpoints" / stage / "step-6"
        assert not (last / "model.safetensors").exists()
        weights = load_file(last / "adapter_model.safetensors")
        # 3 layers, three targets, two matrices each; the second starts at zero and has moved
        assert len(weights) == 3 * 3 * 2
        moved = [bool(value.any()) for name, value in weights.items() if "lora_B" in name]
        # a start that no reward was given to has nothing to learn from
        assert all(moved) if stage == "weft" else not any(moved)
    # the reference is the start, which is the adapter switched off
    assert {row["kl"] for row in metrics(out) if "kl" in row} == {0.0}
    assert list(json.loads((out / "eval.json").read_text())) == ["base", "weft", "rl"]


def test_countdown_and_published_problems(tmp_path):
    out = tmp_path / "countdown"
    assert main([*SMALL, "task=countdown", "eval.data=published", f"out={out}"]) == 0
    scores = json.loads((out / "eval.json").read_text())
    assert [stage["countdown"]["n"] for stage in scores.values()] == [6, 6, 6]
    rows = [json.loads(row) for row in (out / "completions" / "rl.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows} == {"countdown"}
    held_out = (out / "completions" / "eval-rl.jsonl").read_text().splitlines()
    assert json.loads(held_out[0])["fields"] == {"numbers": [30, 100, 93], "target": 23}


def test_every_cold_start_runs(tmp_path, first):
    out, reference = tmp_path / "all", first / "checkpoints" / "weft" / "step-6"
    stages = [stage for stage in RECIPES if stage != "weft"]
    arguments = [
        f"stages=[{','.join(stages)}]",
        "eval.after_each=false",
        "cold_start.entropy_pass.rates=cached",
        "cold_start.entropy_pass.refresh_every=2",
        f"cold_start.ref_model={reference}",
    ]
    assert main([*SMALL, *arguments, f"out={out}"]) == 0
    rows = metrics(out)
    assert [row["step"] for row in rows if row["stage"] == "rho1"] == [1, 2, 3, 4, 5, 6]
    # the entropies of the recipes that have them
    for stage in stages:
        logged = any("token_entropy" in row for row in rows if row["stage"] == stage)
        assert logged == (RECIPES[stage].statistic == "entropy")
        assert (out / f"token_entropy-{stage}.csv").exists() == logged
        # rates that follow entropies are drawn along a few responses
        has_heatmap = "entropy" in RECIPES[stage].rates
        assert (out / f"token_heat-{stage}.json").exists() == has_heatmap
    lines = (out / "token_entropy-weft_sw.csv").read_text().splitlines()
    assert lines[0] == "id,token,count,mean_entropy"
    counts = [int(line.rsplit(",", 2)[1]) for line in lines[1:]]
    assert counts == sorted(counts, reverse=True)
