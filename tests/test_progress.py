"""Progress: lines in a log, and what sampling shows on a terminal."""

import io
import re
import sys
import time
from datetime import timedelta

import numpy as np
import pytest
from rich.console import Console

from weft_rl.io.log_lines import LogLines, time_left
from weft_rl.sampler.denoise import Step
from weft_rl.sampler.progress import live_completion, progress_bar, state


def test_tenths_and_half_minutes(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for seconds, total, logged in ((1.0, 200, range(20, 201, 20)), (16.0, 1000, range(2, 101, 2))):
        lines = LogLines("rl")
        for step in range(1, logged[-1] + 1):
            clock[0] += seconds
            lines.update(step / total, f"step {step}")
        printed = [int(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
        assert printed == [*logged]
    # a resumed stage begins where it was
    LogLines("rl", 0.55).update(0.56, "step 56")
    assert capsys.readouterr().out == ""
    assert time_left(10.0, 5, 15) == str(timedelta(seconds=30))
    assert time_left(10.0, 0, 15) == "?"


@pytest.mark.slow
def test_each_stage_of_a_run_logs(tmp_path, monkeypatch):
    from run_folders import SMALL

    from weft_rl.pipeline.run import main

    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    log = io.StringIO()
    monkeypatch.setattr(sys, "stdout", log)
    assert main([*SMALL, f"out={tmp_path / 'run'}"]) == 0
    text = log.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    for stage, last in (("base", 5), ("weft", 1), ("rl", 2)):
        assert re.search(rf"^{stage}: step {last} of {last}, (loss|reward) .*left$", text, re.M)
        assert re.search(rf"^{stage}: evaluation: 4/4, ", text, re.M)


def step(**changes):
    places = {"rows": [0, 1, 0], "positions": [2, 0, 0], "tokens": [7, 9, 8]}
    values = {name: np.array(value) for name, value in places.items()}
    values |= {"confidences": np.ones(3), "finished": 3, "total": 8, "share": 0.4}
    return Step(**values | {"committed": 84, "forwards": 45, "seconds": 8.0} | changes)


@pytest.fixture(autouse=True)
def a_terminal_that_can(monkeypatch):
    """Rich does not draw on a dumb one."""
    monkeypatch.setenv("TERM", "xterm")


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def test_speed_forwards_and_time_left():
    # 84 tokens in 8 s; 0.6 / 0.4 x 8 s are left
    assert state(step()) == "3/8, 10 tokens/s, 45 forwards, left 0:00:12"
    assert state(step(share=1.0, finished=8)).endswith("left 0:00:00")
    assert state(step(share=0.0, seconds=0.0)) == "3/8, 0 tokens/s, 45 forwards, left ?"
    console = terminal()
    with progress_bar("rollout", console) as on_step:
        on_step(step())
    assert "3/8, 10 tokens/s, 45 forwards, left 0:00:12" in console.file.getvalue()


def test_the_first_row_fills_up():
    console = terminal()
    words = {7: " seven", 8: "eight", 9: "nine"}
    with live_completion(4, lambda tokens: words[tokens[0]], console) as on_step:
        on_step(step(rows=np.array([0]), positions=np.array([2]), tokens=np.array([7])))
        on_step(step())
    shown = console.file.getvalue()
    assert "·· seven·" in shown
    assert "eight· seven·" in shown
    assert "nine" not in shown


def test_nothing_is_left_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress_bar("rollout", console) as on_step:
        on_step(step())
    with live_completion(4, str, console) as on_step:
        on_step(step())
    assert console.file.getvalue() == ""
