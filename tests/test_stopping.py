"""One of two processes is told to stop, or dies: what the other one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SMALL = "preset=tiny stages=[rl] eval.after_each=false sampler.steps=4 rl.num_prompts=2 "
SMALL += "rl.num_generations=2 rl.num_iterations=2 rl.save_steps=1000"
DEADLINE_S = 120


class Pair:
    """Two processes of a run, each with its status and what it said, ended in any case."""

    def __init__(self, start, out, *words):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.out = out
        both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "weft_rl.pipeline", *SMALL.split(), *words]
        self.processes = [
            subprocess.Popen(
                [*command, f"model={start}", f"out={out}"],
                env=os.environ | both | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    def until_step(self, step):
        """Returns the processes once that many steps are through."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if len(rows(self.out)) >= step:
                return self.processes
            ended = [p for p in self.processes if p.poll() is not None]
            assert not ended, ended[0].communicate()[1]
            time.sleep(0.02)
        raise AssertionError(f"no step {step} in {DEADLINE_S} s")


def rows(out: Path):
    path = out / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k != "time_s"} for line in lines]


def test_a_signal_to_one_stops_both_after_the_same_step(start, tmp_path):
    with Pair(start, tmp_path / "run", "rl.max_steps=1000") as pair:
        _, second = pair.until_step(2)
        second.send_signal(signal.SIGUSR1)
        said = [process.communicate(timeout=DEADLINE_S)[1] for process in pair.processes]
        assert [process.returncode for process in pair.processes] == [3, 3], said
    last = rows(tmp_path / "run")[-1]["step"]
    assert [f"after step {last} of 1000" in each for each in said] == [True, True], said
    (kept,) = (tmp_path / "run/checkpoints/rl").iterdir()
    assert kept.name == f"step-{last}"


def test_who_is_gone_is_named(start, tmp_path):
    words = ("rl.max_steps=1000", "reliability.stall_timeout=12")
    with Pair(start, tmp_path / "run", *words) as pair:
        first, second = pair.until_step(2)
        second.kill()
        said = first.communicate(timeout=DEADLINE_S)[1]
        assert first.returncode == 3, said
    assert f"process 1 of 2 gives no sign of life (last: pid {second.pid} on " in said


def test_who_stands_still_is_named(start, tmp_path):
    """Stopped, a process holds its connections, over which the other one waits."""
    words = ("rl.max_steps=1000", "reliability.stall_timeout=10")
    with Pair(start, tmp_path / "run", *words) as pair:
        first, second = pair.until_step(2)
        second.send_signal(signal.SIGSTOP)
        said = first.communicate(timeout=DEADLINE_S)[1]
        assert first.returncode == 3, said
    assert "no step has ended for 10 s" in said
    assert f"process 1 of 2 gives no sign of life (last: pid {second.pid} on " in said
    assert f"process 0 of 2 stands still: pid {first.pid} on " in said
