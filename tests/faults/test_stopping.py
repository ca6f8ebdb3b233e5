"""One of two processes is told to stop, dies, or hangs: both stop, and the message names it."""

import json
import os
import signal
import socket
import time

import lives
import pytest

pytestmark = pytest.mark.slow
SMALL = "preset=tiny stages=[rl] eval.after_each=false sampler.steps=4 rl.num_prompts=2 "
SMALL += "rl.num_generations=2 rl.num_iterations=2 rl.save_steps=1000 rl.max_steps=1000"
DEADLINE_S = 120


@pytest.fixture
def pair(start, tmp_path):
    """Two processes of a run after their second step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (*SMALL.split(), "reliability.stall_timeout=6", f"model={start}")
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    commands = [
        lives.Command(
            "weft_rl.pipeline", (*words, f"out={tmp_path / 'run'}"), tmp_path, both | {"RANK": rank}
        )
        for rank in "01"
    ]
    processes = [lives.start(command, tmp_path / f"log-{i}") for i, command in enumerate(commands)]
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(steps(tmp_path / "run")) < 2:
            assert all(process.is_alive() for process in processes), output(tmp_path, 0)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield processes
    finally:
        for process in processes:
            lives.end_session(process)


def steps(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line)["step"] for line in lines]


def output(folder, rank):
    return (folder / f"log-{rank}").read_text()


def test_a_signal_to_one_stops_both_after_the_same_step(pair, tmp_path):
    os.kill(pair[1].pid, signal.SIGUSR1)
    for process in pair:
        process.join(DEADLINE_S)
    last = steps(tmp_path / "run")[-1]
    for rank, process in enumerate(pair):
        assert process.exitcode == 3
        assert f"after step {last} of 1000" in output(tmp_path, rank)
    (kept,) = (tmp_path / "run/checkpoints/rl").iterdir()
    assert kept.name == f"step-{last}"


# stopped, a process holds its connections, over which the other one waits
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_who_is_gone_or_hangs_is_named(pair, tmp_path, number):
    first, second = pair
    os.kill(second.pid, number)
    first.join(DEADLINE_S)
    assert first.exitcode == 3, output(tmp_path, 0)
    message = output(tmp_path, 0)
    assert "process 1 of 2" in message
    assert f"pid {second.pid} on " in message
    if number == signal.SIGSTOP:
        assert "process 0 of 2" in message
        assert f"pid {first.pid} on " in message
