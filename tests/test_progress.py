"""Lines in a log: at each tenth, and every half minute in between."""

import io
import re
import sys
import time
from datetime import timedelta

from weft_rl.io.log_lines import LogLines, time_left


def test_tenths_and_half_minutes(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    lines = LogLines("rl")
    for step in range(1, 201):
        clock[0] += 1.0
        lines.update(step / 200, f"step {step}")
    told = [int(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert told == [20 * tenth for tenth in range(1, 11)]
    slow = LogLines("rl")
    for step in range(1, 101):
        clock[0] += 16.0
        slow.update(step / 1000, f"step {step}")
    told = [int(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert told == [*range(2, 101, 2)]


def test_a_resumed_stage_begins_where_it_was(capsys):
    LogLines("rl", 0.55).update(0.56, "step 56")
    assert capsys.readouterr().out == ""


def test_time_left():
    assert time_left(10.0, 5, 15) == str(timedelta(seconds=30))
    assert time_left(10.0, 0, 15) == "?"


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
