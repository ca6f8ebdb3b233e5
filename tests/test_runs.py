"""Files of a run directory: one writing process, and files that are complete or absent."""

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from weft_rl.errors import UserError
from weft_rl.runs.atomic_io import atomic_rename, write_text
from weft_rl.runs.folder import newest_checkpoint, quarantine
from weft_rl.runs.jsonl import append_line, cut_lines, read_lines
from weft_rl.runs.lock import run_lock

HOLD = """
import os, sys, time
from pathlib import Path
from weft_rl.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    if "fork" in sys.argv and os.fork() == 0:
        os.close(1)
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def is_locked_by(folder, pid):
    with pytest.raises(UserError, match=f"process {pid} on .* since 2.* UTC"), run_lock(folder):
        pass


@pytest.mark.parametrize("fork", [False, True])
def test_the_lock_of_a_killed_process_does_not_count(tmp_path, fork):
    command = [sys.executable, "-c", HOLD, str(tmp_path), *(["fork"] * fork)]
    options = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as other:
        try:
            assert other.stdout.readline() == "held\n"
            is_locked_by(tmp_path, other.pid)
            other.kill()
            other.wait()
            for _ in range(2):
                with run_lock(tmp_path):
                    is_locked_by(tmp_path, os.getpid())
        finally:
            if fork:
                os.killpg(other.pid, signal.SIGKILL)


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".a.json.{process}.part").write_text("torn")
    write_text(tmp_path / "a.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", f".a.json.{os.getppid()}.part"}


def test_a_write_that_fails_names_its_target_and_changes_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "report.html", tmp_path / "folder"):
        with pytest.raises(OSError, match=rf"\[Errno \d+\] [\w ]+: '{path}'$"):
            write_text(path, "a")
    # the old file stays
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"a.txt", "folder"}


def test_a_folder_replaces_an_older_one(tmp_path):
    for name, text in (("new", "2"), ("final", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    atomic_rename(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_lines_survive_a_torn_end_and_infinity(tmp_path):
    path = tmp_path / "m.jsonl"
    append_line(path, {"stage": "rl", "step": 1, "kl": math.inf})
    with path.open("a") as file:
        file.write('{"stage": "rl", "st')
    assert list(read_lines(path)) == [{"stage": "rl", "step": 1, "kl": None}]
    # cutting keeps other stages and earlier steps
    rows = [("weft", 9), ("rl", 1), ("rl", 2), ("rl", 3), ("rl", "x")]
    path.write_text("".join(json.dumps({"stage": s, "step": n}) + "\n" for s, n in rows))
    cut_lines(path, "rl", 2)
    assert [(row["stage"], row["step"]) for row in read_lines(path)] == rows[:3]


def test_the_newest_checkpoint_is_the_highest_step(tmp_path):
    assert newest_checkpoint(tmp_path, "rl") is None
    for name in ("step-9", "step-10", "step-x", ".step-11"):
        (tmp_path / "checkpoints" / "rl" / name).mkdir(parents=True)
    assert newest_checkpoint(tmp_path, "rl") == tmp_path / "checkpoints" / "rl" / "step-10"


def test_a_corrupt_checkpoint_does_not_replace_what_is_in_the_way(tmp_path):
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1.damaged").write_text("")
    assert "step-1.damaged-2" in quarantine(tmp_path / "step-1", "broken")
    assert (tmp_path / "step-1.damaged-2").is_dir()
