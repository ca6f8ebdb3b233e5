"""Disks that fill up, folders that may not be written, clocks that jump, folders in use."""

import subprocess

import harm
import pytest
from disks import grow, small_disk
from folders import differences
from kills import command, whole
from lives import end_session, live, start
from waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def unharmed(root):
    return whole("sft", root)


@pytest.fixture
def run(root):
    folder = root / "run"
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=False)
    subprocess.run(["rm", "-rf", folder], check=True)


# the base's copy, and the second checkpoint
@pytest.mark.parametrize("size", [100, 3500])
def test_a_full_disk_stops_the_run_which_goes_on_when_there_is_room(size, root, run, unharmed):
    with small_disk(run, size):
        life = live(command("sft", root), root / "log")
        assert life.status == 3, life.output
        assert "the disk is full" in life.output.splitlines()[-1]
        grow(run)
        life = live(command("sft", root), root / "log")
        assert (life.status, differences(run, unharmed.files)) == (0, []), life.output


@pytest.mark.parametrize("place", [".", "checkpoints/sft"])
def test_a_folder_that_may_not_be_written(place, root, run, unharmed):
    if place == ".":
        root.chmod(0o555)
    else:
        (run / place).mkdir(parents=True)
        (run / place).chmod(0o555)
    try:
        life = live(command("sft", root)._replace(prepare=harm.give_up_rights), root / "log")
    finally:
        root.chmod(0o755)
    assert life.status == 2, life.output


def test_of_two_processes_one_is_refused(root, run, unharmed):
    first = start(command("sft", root), root / "first")
    try:
        wait_until(lambda: (run / ".lock").exists() and (run / ".lock").read_text(), 300)
        second = live(command("sft", root), root / "log")
    finally:
        end_session(first)
    assert second.status == 2
    assert f"process {first.pid} " in second.output
