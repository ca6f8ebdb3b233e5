"""One writer to a run folder."""

import os
import signal
import subprocess
import sys

import pytest

from weft_rl.errors import UserError
from weft_rl.runs.atomic_io import write_text
from weft_rl.runs.lock import run_lock

HOLD = """
import sys, time
from pathlib import Path
from weft_rl.runs.folder import run_lock, write_text
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_has_the_folder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"process {other.pid} on .* since 2.* UTC is writing"),
            run_lock(tmp_path),
        ):
            pass
        # killed without a chance to tidy up, it holds nothing any more
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with run_lock(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()


ORPHAN = """
import os, sys, time
from pathlib import Path
from weft_rl.runs.folder import run_lock
with run_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        os.close(1)
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_dead_process_is_followed_though_its_child_holds_on_to_the_lock(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(UserError, match=f"process {other.pid} "), run_lock(tmp_path):
                pass
            os.kill(other.pid, signal.SIGKILL)
            other.wait()
            with run_lock(tmp_path):
                assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
        finally:
            os.killpg(other.pid, signal.SIGKILL)


def test_the_folder_is_free_afterwards_and_not_before(tmp_path):
    for _ in range(2):
        with (
            run_lock(tmp_path),
            pytest.raises(UserError, match=f"process {os.getpid()} "),
            run_lock(tmp_path),
        ):
            pass


def test_what_a_killed_process_left_beside_a_file_is_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".a.json.{process}.part").write_text("torn")
    write_text(tmp_path / "a.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", f".a.json.{os.getppid()}.part"}


def test_an_error_names_the_file_and_not_what_it_is_called_meanwhile(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "report.html", tmp_path / "folder"):
        with pytest.raises(OSError, match=rf"\[Errno \d+\] [\w ]+: '{path}'$"):
            write_text(path, "a")
