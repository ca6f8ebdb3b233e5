"""Comparison of LaTeX answers by value in a process of its own, which can be ended at any time.

math-verify limits its time by signals, which only reach a main thread and wait for the end of a
long operation on integers. Here nothing waits: it works in threads and in forked processes too."""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

# On top of the worker's own limit of processor time, for a machine that gives it none.
WALL_S = 20.0
# Loading sympy takes under a second; a disk and a processor that are both busy may take long.
_START_S = 120.0
# -P and the place of this very package, behind all others: nothing in the working directory counts.
_START = "import sys; sys.path.append(sys.argv[1]); from rewards.math_worker import main; main()"
_COMMAND = [sys.executable, "-P", "-c", _START, str(Path(__file__).parents[1])]


class _Worker:
    """A running process; to be used by one thread at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if self._line(_START_S) != b"ready\n":
            words = self.stop().decode("utf-8", "replace").strip()
            raise RuntimeError(f"the process for math-verify did not start: {words[-1000:]}")

    def ask(self, right: str, given: str, problem: str) -> bool | None:
        """The verdict, or None when it took too long; then the process is of no more use."""
        if self.process.stdin is None:
            raise RuntimeError("the process was closed")
        try:
            self.process.stdin.write(json.dumps([right, given, problem]).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        answer = self._line(WALL_S)
        return answer == b"1\n" if answer in (b"1\n", b"0\n") else None

    def stop(self) -> bytes:
        """End the process, whatever it is doing; returns what it said on its standard error."""
        self.process.kill()
        return self.process.communicate()[1]

    def _line(self, limit_s: float) -> bytes:
        """The next line; empty or without its end when time is up or the process has ended."""
        if self.process.stdout is None:
            return b""
        descriptor, line, end = self.process.stdout.fileno(), b"", time.monotonic() + limit_s
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not line.endswith(b"\n"):
            left_ms = int(1000 * (end - time.monotonic()))
            if left_ms <= 0 or not poll.poll(left_ms):
                return line
            part = os.read(descriptor, 64)
            if not part:
                return line
            line += part
        return line


class _Comparer:
    """One worker, started when first needed and again after one that had to be ended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: _Worker | None = None

    def ask(self, right: str, given: str, problem: str) -> bool | None:
        """The verdict, or None when there is none in time."""
        with self.lock:
            self.worker = self.worker or _Worker()
            verdict = self.worker.ask(right, given, problem)
            if verdict is None:
                self.close()
            return verdict

    def close(self) -> None:
        """End the process, if there is one."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None


_comparer = _Comparer()


def _after_fork() -> None:
    """A forked process must not talk over its parent's pipes, nor keep them open."""
    global _comparer
    old, _comparer = _comparer, _Comparer()
    if old.worker is not None:
        for pipe in (old.worker.process.stdin, old.worker.process.stdout):
            if pipe is not None:
                os.close(pipe.fileno())
        _forgotten.append(old.worker)


def _at_exit() -> None:
    _comparer.close()


# Kept, so that the garbage collector does not warn of a process that is not this one's.
_forgotten: list[_Worker] = []
os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


# As many pairs as some training steps have: completions of a prompt often agree.
@lru_cache(maxsize=4096)
def is_solved(right: str, given: str, problem: str) -> bool | None:
    """Whether two LaTeX answers have the same value and the given one is not the problem's formula.

    right, given: of any length; the caller keeps them short. problem: may be empty. None when
    math-verify cannot say in time. Raises RuntimeError when the process cannot be started."""
    return _comparer.ask(right, given, problem)
