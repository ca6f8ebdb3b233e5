"""`compare`: mistakes in its options, its folder, the processes of its runs, and all of it once."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from rl_trainer import small_model
from run_folders import SMALL, write_lines

from weft_rl.compare.command import is_done, main, open_comparison, read_options
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.folder import read_json
from weft_rl.sweeps.jobs import Job, Pool, last_line, run_in

ARMS = "arms=[sft,weft]"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "arms: is missing"),
        (["arms=[]"], "arms=[]: must be a list of length at least 1"),
        (["arms=[sft,rl]"], "arms=[sft,rl]: rl is no cold start; there are sft, weft"),
        (["arms=[sft,sft]"], "arms=[sft,sft]: sft stands there twice"),
        ([ARMS, "seeds=[0,a]"], "seeds=[0,a]: must be a list like [a,b], each a whole number"),
        ([ARMS, "seeds=[1,1]"], "seeds=[1,1]: 1 stands there twice"),
        ([ARMS, "seeds=[-1]"], "seeds=[-1]: -1 is not from 0"),
        ([ARMS, "workers=0"], "workers=0: must be at least 1"),
        ([ARMS, "launcher=slurm"], "launcher=slurm: must be one of local, submitit, ray"),
        ([ARMS, "seed=1"], "seed=1: compare sets it for each run; write seeds=[...]"),
        ([ARMS, "stages=[rl]"], "stages=[rl]: compare sets it for each run; write arms=[...]"),
        ([ARMS, "eval.after_each=false"], "eval.after_each=false: compare needs"),
        ([ARMS, "rl.max_step=3"], "rl.max_step=3: no such option; did you mean rl.max_steps?"),
        ([ARMS, "seedz=[0]"], "seedz=[0]: no such option; did you mean seeds?"),
        ([ARMS, "rl.num_prompts=0"], "rl.num_prompts=0: must be at least 1"),
        ([ARMS, "model=./none"], "model=./none: no such folder"),
        ([ARMS, "data=none.jsonl"], "none.jsonl"),
        ([ARMS, "--fast"], "--fast: no such flag"),
    ],
)
def test_mistakes_stop_it_before_anything_runs(argv, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main(argv)
    assert line in str(error.value)
    assert not any(tmp_path.iterdir())


def test_a_mistake_is_one_line_without_torch():
    code = (
        "import sys; from weft_rl.__main__ import main; status = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", ARMS, "seed=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_print_config(capsys):
    assert main([ARMS, "seeds=[4,5]", "rl.max_steps=3", "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["arms"], shown["seeds"], shown["workers"]) == (["sft", "weft"], [4, 5], None)
    assert shown["run"]["rl"]["max_steps"] == 3
    assert {"stages", "seed"}.isdisjoint(shown["run"])


def opened(folder, *argv):
    options, config, _ = read_options([f"out={folder}", *argv])
    return open_comparison(options, config)


def test_a_folder_of_the_same_options_is_taken_up(tmp_path):
    folder = tmp_path / "a"
    assert opened(folder, ARMS, "rl.max_steps=3") == folder
    # with another split of the cores, and evaluated otherwise
    assert opened(folder, ARMS, "rl.max_steps=3", "workers=2", "eval.num_records=3") == folder
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["versions"]["torch"]
    assert "threads" not in saved


def test_arms_and_seeds_may_join_a_comparison(tmp_path):
    opened(tmp_path, ARMS, "seeds=[0]")
    argv = ["arms=[sft,nll,weft]", "seeds=[1,0]", "launcher=submitit", "trackers=[tensorboard]"]
    assert opened(tmp_path, *argv) == tmp_path
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (saved["arms"], saved["seeds"]) == (["sft", "nll", "weft"], [1, 0])


def test_its_runs_do_not_hear_of_resume():
    """A run that is tried again finds its own folder."""
    _, config, words = read_options([ARMS, "seeds=[0]", "resume=never", "rl.max_steps=3"])
    assert (config.resume, words) == ("never", ["rl.max_steps=3"])


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["arms=[weft,sft]", "seeds=[0]"], "holds arms=[sft,weft]; name them all, in that order"),
        (["arms=[sft]", "seeds=[0]"], "holds arms=[sft,weft]; name them all"),
        ([ARMS, "seeds=[1]"], "holds seeds=[0]; name them all"),
        ([ARMS, "seeds=[0,1]", "rl.max_steps=4"], "(different: rl.max_steps); choose"),
        ([ARMS, "seeds=[0]", "resume=never"], "holds a comparison already"),
    ],
)
def test_a_folder_of_another_comparison_is_refused(argv, line, tmp_path):
    opened(tmp_path, ARMS, "seeds=[0]")
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(UserError) as error:
        opened(tmp_path, *argv)
    assert line in str(error.value)
    assert (tmp_path / "config.yaml").read_text() == before


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("config.yaml", "stages: [sft]\nseed: 0\n", "holds a run, not a comparison"),
        ("config.yaml", "a: [", "config.yaml: cannot be read"),
        ("notes.txt", "", "is not empty and holds no comparison"),
    ],
)
def test_a_folder_of_something_else_is_refused(name, text, line, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=line):
        opened(tmp_path, ARMS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        opened(tmp_path / "file" / "in", ARMS)


def test_failing_jobs(tmp_path):
    (tmp_path / "logs").mkdir()
    jobs = [Job("one", ["seed=x"]), Job("two", ["sede=1"])]
    assert run_in(Pool(1, 1), jobs, tmp_path, 2) == {"one": 2, "two": 2}
    assert last_line(tmp_path / "logs" / "one.log").startswith("weft_rl.pipeline: seed=x: must be")
    assert "sede=1: no such option" in last_line(tmp_path / "logs" / "two.log")
    assert last_line(tmp_path / "logs" / "three.log") == ""


def test_a_job_in_hand_is_not_started_again(tmp_path):
    (tmp_path / "logs").mkdir()
    with (tmp_path / "logs" / "one.log").open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is running one; wait for it"):
            run_in(Pool(1, 1), [Job("one", ["seed=x"])], tmp_path, 1)
    assert run_in(Pool(1, 1), [Job("one", ["seed=x"])], tmp_path, 1) == {"one": 2}


def test_sigterm_stops_the_runs_too(tmp_path):
    out = tmp_path / "a"
    words = [f"out={out}", *SMALL, "resume=never"]
    process = subprocess.Popen(
        [sys.executable, "-m", "weft_rl.compare", ARMS, "seeds=[0]", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WEFT_RL_CACHE": str(tmp_path / "cache")},
    )
    deadline = time.monotonic() + 30
    while not (out / "base" / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "stopped with 0 of 2 runs done; go on with: python -m weft_rl.compare" in said
    assert "resume=never" not in said
    assert not (out / "base" / "stages.json").exists()
    with (out / "logs" / "base.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it: the run has ended


def test_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "a"
    argv = [ARMS, "seeds=[3]", f"out={out}", *SMALL]
    assert main(argv) == 0
    result = read_json(out / "comparison.json", {})
    assert (result["missing"], result["n"], result["task"]) == ([], 4, "sudoku")
    for arm in ("sft", "weft"):
        evaluated = read_json(out / f"{arm}-seed3" / "eval.json", {})
        for part, stage in zip(("base", "cold_start", "rl"), ("base", arm, "rl"), strict=True):
            there = evaluated[stage]["sudoku"]
            assert result["results"][arm][part]["score"] == pytest.approx(there["score"], abs=0.01)
        assert yaml.safe_load((out / f"{arm}-seed3" / "config.yaml").read_text())["seed"] == 3
    assert [e["stage"] for e in result["differences"]] == ["rl", "cold_start"]
    assert (out / "curves.png").stat().st_size > 1000
    assert "weft-seed3/report.html" in (out / "report.html").read_text()
    assert "WeFT then RL against SFT then RL" in (out / "comparison.md").read_text()
    # again: nothing is run
    logs = {path: path.stat().st_size for path in (out / "logs").iterdir()}
    assert main(argv) == 0
    assert {path: path.stat().st_size for path in (out / "logs").iterdir()} == logs


def test_a_failed_run_is_told_and_missed(tmp_path, capsys):
    small_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    out = tmp_path / "a"
    argv = [ARMS, "seeds=[3]", f"model={tmp_path / 'model'}", "preset=tiny", "device=cpu"]
    opened(out, *argv)
    # one run is through; the other's folder is not its own, which it finds out by itself
    done, broken = out / "sft-seed3", out / "weft-seed3"
    done.mkdir()
    (done / "config.yaml").write_text("task: sudoku\nrevision: abc\n")
    write_json(done / "eval.json", {"rl": {"sudoku": {"n": 1, "score": 50.0, "ci95": [50, 50]}}})
    assert not is_done(
        done, load_run_config(["model=./a", "preset=tiny"], command="it"), "sft"
    )  # stopped before its end, which is the report
    (done / "report.html").write_text("")
    assert is_done(done, load_run_config(["model=./a", "preset=tiny"], command="it"), "sft")
    row = {"id": "a", "task": "sudoku", "scores": {"cell_accuracy": 0.5, "exact": 0.0}}
    write_lines(done / "completions" / "eval-rl.jsonl", [row])
    broken.mkdir()
    (broken / "notes.txt").write_text("")
    assert main([*argv, f"out={out}"]) == 1
    said = capsys.readouterr()
    assert "weft-seed3: failed with status 2: weft_rl.pipeline: out=" in said.err
    assert f"(see {out / 'logs' / 'weft-seed3.log'})" in said.err
    assert "Missing: weft-seed3." in said.out
    assert read_json(out / "comparison.json", {})["revisions"] == ["abc"]
    result = read_json(out / "comparison.json", {})
    assert result["missing"] == ["weft-seed3"]
    assert result["results"]["sft"]["rl"]["score"] == 50.0
    # without any run there is nothing to compare, and nothing is written
    shutil.rmtree(done)
    done.mkdir()
    (done / "notes.txt").write_text("")
    (out / "comparison.json").unlink()
    assert main([*argv, f"out={out}"]) == 1
    assert not (out / "comparison.json").exists()
