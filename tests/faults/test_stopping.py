"""One of two processes is told to stop, dies, or hangs: both stop, and the message names it."""

import json
import os
import signal
import socket

import lives
import pytest
from waiting import wait_until

pytestmark = pytest.mark.slow
SMALL = "preset=tiny stages=[rl] eval.after_each=false sampler.steps=4 rl.num_prompts=2 "
SMALL += "rl.num_generations=2 rl.num_iterations=2 rl.save_steps=1000 rl.max_steps=1000"
DEADLINE_S = 120


@pytest.fixture
def pair(start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (*SMALL.split(), "reliability.stall_timeout=6", f"model={start}")
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = (*words, f"out={tmp_path / 'run'}")
    processes = []
    for rank in "01":
        command = lives.Command("weft_rl.pipeline", words, tmp_path, both | {"RANK": rank})
        processes.append(lives.start(command, tmp_path / f"log-{rank}"))
    try:
        wait_until(lambda: len(steps(tmp_path / "run")) >= 2)
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
