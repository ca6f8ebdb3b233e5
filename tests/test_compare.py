"""`compare`: user errors, its directory, the processes of its runs, and a comparison end to end."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from in_process import run_in_process
from rl_trainer import small_model
from run_folders import SMALL, write_lines
from waiting import wait_until

from weft_rl.compare import is_done, main, open_comparison, read_options
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.folder import read_json
from weft_rl.sweeps.jobs import Job, Pool, last_line, run_in

ARMS = "arms=[sft,weft]"


def test_print_config(capsys):
    assert main([ARMS, "seeds=[4,5]", "rl.max_steps=3", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["arms"], printed["seeds"]) == (["sft", "weft"], [4, 5])
    assert printed["run"]["rl"]["max_steps"] == 3
    assert {"stages", "seed"}.isdisjoint(printed["run"])


def opened(folder, *argv):
    options, config, _ = read_options([f"out={folder}", *argv])
    return open_comparison(options, config)


def test_the_directory_of_the_same_options_is_reused(tmp_path):
    folder = tmp_path / "a"
    assert opened(folder, ARMS, "rl.max_steps=3", "seeds=[0,1]") == folder
    # other workers and another evaluation
    more = ["workers=2", "eval.num_records=3", "seeds=[0,1]"]
    assert opened(folder, ARMS, "rl.max_steps=3", *more) == folder
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["versions"]["torch"]
    assert "threads" not in saved
    # arms and seeds can be added
    more = ["seeds=[1,0,2]", "launcher=submitit", "trackers=[tensorboard]", "rl.max_steps=3"]
    assert opened(folder, "arms=[sft,nll,weft]", *more) == folder
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert (saved["arms"], saved["seeds"]) == (["sft", "nll", "weft"], [1, 0, 2])


def test_runs_do_not_get_resume_never():
    _, config, arguments = read_options([ARMS, "seeds=[0]", "resume=never", "rl.max_steps=3"])
    assert (config.resume, arguments) == ("never", ["rl.max_steps=3"])


def test_another_directory_is_refused(tmp_path):
    opened(tmp_path, ARMS, "seeds=[0]")
    before = (tmp_path / "config.yaml").read_text()
    for words, key in (
        ("arms=[weft,sft] seeds=[0]", "arms=[sft,weft]"),
        ("arms=[sft] seeds=[0]", "arms=[sft,weft]"),
        ("arms=[sft,weft] seeds=[1]", "seeds=[0]"),
        ("arms=[sft,weft] seeds=[0,1] rl.max_steps=4", "(different: rl.max_steps)"),
        ("arms=[sft,weft] seeds=[0] resume=never", "resume=never"),
    ):
        with pytest.raises(UserError, match=re.escape(key)):
            opened(tmp_path, *words.split())
        assert (tmp_path / "config.yaml").read_text() == before


@pytest.mark.parametrize(
    ("name", "text", "out"),
    [
        *(("config.yaml", "stages: [sft]\nseed: 0\n", ""), ("config.yaml", "a: [", "")),
        *(("notes.txt", "", ""), ("notes.txt", "", "notes.txt/in")),
    ],
)
def test_a_directory_of_something_else_is_refused(tmp_path, name, text, out):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=str(tmp_path)):
        opened(tmp_path / out, ARMS)


@pytest.mark.slow
def test_failed_and_locked_jobs(tmp_path):
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "one.log"
    jobs = [Job("one", ["seed=x"])]
    with log.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is running one"):
            run_in(Pool(1, 1), jobs, tmp_path, 1)
    assert run_in(Pool(1, 1), jobs, tmp_path, 1) == {"one": 2}
    assert last_line(log).startswith("weft_rl.pipeline: seed=x: must be")
    assert last_line(tmp_path / "logs" / "two.log") == ""


@pytest.mark.slow
def test_sigterm_stops_the_runs_too(tmp_path):
    out = tmp_path / "a"
    words = [ARMS, "seeds=[0]", f"out={out}", *SMALL, "resume=never"]
    env = os.environ | {"WEFT_RL_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "weft_rl.compare", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=env, **pipes)
    wait_until((out / "base" / "config.yaml").exists)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "0 of 2 runs" in message
    assert "python -m weft_rl.compare" in message
    assert "resume=never" not in message
    assert not (out / "base" / "stages.json").exists()
    with (out / "logs" / "base.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the run has ended


@pytest.mark.slow
def test_end_to_end(tmp_path, monkeypatch):
    run_in_process(monkeypatch)
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "a"
    argv = [ARMS, "seeds=[3]", f"out={out}", *SMALL]
    assert main(argv) == 0
    result = read_json(out / "comparison.json", {})
    assert (result["missing"], result["n"], result["task"]) == ([], 4, "sudoku")
    for arm in ("sft", "weft"):
        evaluated = read_json(out / f"{arm}-seed3" / "eval.json", {})
        for part, stage in zip(("base", "cold_start", "rl"), ("base", arm, "rl"), strict=True):
            score = evaluated[stage]["sudoku"]["score"]
            assert result["results"][arm][part]["score"] == pytest.approx(score, abs=0.01)
        assert yaml.safe_load((out / f"{arm}-seed3" / "config.yaml").read_text())["seed"] == 3
    assert [e["stage"] for e in result["differences"]] == ["rl", "cold_start"]
    assert (out / "curves.png").stat().st_size > 1000
    assert "weft-seed3/report.html" in (out / "report.html").read_text()
    assert "WeFT then RL against SFT then RL" in (out / "comparison.md").read_text()
    # a second time nothing runs
    logs = {path: path.stat().st_size for path in (out / "logs").iterdir()}
    assert main(argv) == 0
    assert {path: path.stat().st_size for path in (out / "logs").iterdir()} == logs


@pytest.mark.slow
def test_a_failed_run_is_reported_and_left_out(tmp_path, monkeypatch, capsys):
    run_in_process(monkeypatch)
    small_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    out = tmp_path / "a"
    argv = [ARMS, "seeds=[3]", f"model={tmp_path / 'model'}", "preset=tiny", "device=cpu"]
    opened(out, *argv)
    # one run is done; the other's directory belongs to something else, which the run refuses
    done, broken = out / "sft-seed3", out / "weft-seed3"
    done.mkdir()
    (done / "config.yaml").write_text("task: sudoku\nrevision: abc\n")
    write_json(done / "eval.json", {"rl": {"sudoku": {"n": 1, "score": 50.0, "ci95": [50, 50]}}})
    config = load_run_config(["model=./a", "preset=tiny"], command="x")
    assert not is_done(done, config, "sft")  # the report is the last thing that a run writes
    (done / "report.html").write_text("")
    assert is_done(done, config, "sft")
    row = {"id": "a", "task": "sudoku", "scores": {"cell_accuracy": 0.5, "exact": 0.0}}
    write_lines(done / "completions" / "eval-rl.jsonl", [row])
    broken.mkdir()
    (broken / "notes.txt").write_text("")
    assert main([*argv, f"out={out}"]) == 1
    printed = capsys.readouterr()
    assert "weft-seed3: failed with status 2: weft_rl.pipeline: out=" in printed.err
    assert f"(see {out / 'logs' / 'weft-seed3.log'})" in printed.err
    result = read_json(out / "comparison.json", {})
    assert (result["revisions"], result["missing"]) == (["abc"], ["weft-seed3"])
    assert result["results"]["sft"]["rl"]["score"] == 50.0
    # without any evaluated run nothing is written
    shutil.rmtree(done)
    done.mkdir()
    (done / "notes.txt").write_text("")
    (out / "comparison.json").unlink()
    assert main([*argv, f"out={out}"]) == 1
    assert not (out / "comparison.json").exists()
