"""The processes that compare LaTeX answers, and how a batch of pairs is dealt to them.

A process that takes too long, or is killed, is replaced; verdicts are kept, those that were not
reached in time too. Which process judges a pair, and in what order, changes no verdict."""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

from weft_rl.rewards.answers.limits import is_too_costly

Pair = tuple[str, str, str]  # the right answer, the given one, the problem
Verdicts = dict[Pair, bool | None]

# For a pair, on top of the worker's own limit of processor time; for a machine that gives it none.
WALL_S = 20.0
# Loading sympy takes under a second; a disk and a processor that are both busy may take long.
_START_S = 120.0
# Usual answers take milliseconds; a further process, a second of work, is for batches with others.
_PATIENCE_S = 1.0
# Of a pair whose worker was killed from outside, and of a start that failed.
_TRIES = 2
# As many pairs as some training steps have: completions of a prompt often agree.
_KEPT = 4096
# -P and the place of this very package, behind all others: nothing in the working directory counts.
# Signals that a terminal or a scheduler sends to all processes are for the parent to answer.
_START = (
    "import signal, sys; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM,"
    " signal.SIGUSR1)]; sys.path.append(sys.argv[1]);"
    " from weft_rl.rewards.answers.worker import main; main()"
)
_COMMAND = [sys.executable, "-P", "-c", _START, str(Path(__file__).parents[3])]


class Worker:
    """A running process, and the pair it has if any."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # sets in one order everywhere, and so what sympy makes of them
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )
        self.pair: Pair | None = None
        self.is_ready, self.received = False, b""
        self.end = time.monotonic() + _START_S

    @property
    def output(self) -> int:
        """The descriptor that answers come from."""
        return self.process.stdout.fileno() if self.process.stdout else -1

    def give(self, pair: Pair) -> None:
        """Send a pair; a process that has ended shows when its answer is read."""
        self.pair, self.end = pair, time.monotonic() + WALL_S
        if self.process.stdin is not None:
            try:
                self.process.stdin.write(json.dumps(pair).encode() + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                return

    def read(self) -> bytes | None:
        """A whole line; b"" while it is not whole, None when the process has ended."""
        part = os.read(self.output, 64)
        self.received += part
        if not part:
            return None
        if not self.received.endswith(b"\n"):
            return b""
        line, self.received = self.received, b""
        return line

    def stop(self) -> bytes:
        """End the process, whatever it is doing; returns what it said on its standard error."""
        self.process.kill()
        if self.process.stdin is not None and self.process.stdin.closed:
            self.process.stdin = None  # communicate would flush it
        return self.process.communicate()[1]


class Pool:
    """Workers, started when they are needed and again after one that had to be ended."""

    def __init__(self, most: int | None = None, verdicts: Verdicts | None = None) -> None:
        self.most = most or _share_of_cores()
        self.lock = threading.RLock()
        self.workers: list[Worker] = []
        self.has_started = False
        self.verdicts: Verdicts = verdicts or {}

    def ask(self, pairs: Sequence[Pair], limit_s: float) -> tuple[list[bool | None], float]:
        """The verdicts, and the seconds of the limit that they took; the first start aside.

        One thread asks at a time; another waits no longer than its own limit."""
        if all(pair in self.verdicts for pair in pairs):
            return [self.verdicts.get(pair) for pair in pairs], 0.0
        begun = time.monotonic()
        try:
            # within the try: a signal's handler may raise between taking the lock and noting it
            if not self.lock.acquire(timeout=max(limit_s, 0)):
                return [self.verdicts.get(pair) for pair in pairs], time.monotonic() - begun
            new = [pair for pair in dict.fromkeys(pairs) if pair not in self.verdicts]
            found: Verdicts = {pair: None for pair in new if is_too_costly(pair[1])}
            # short ones first: they are decided though others use up the time
            waiting = sorted((pair for pair in new if pair not in found), key=lambda p: len(p[1]))
            if waiting and limit_s > 0:
                batch = _Batch(self, waiting, found)
                if not self.has_started:  # a cold disk is no fault of the answers
                    batch.start()
                    begun, self.has_started = time.monotonic(), True
                batch.run(begun + limit_s)
            known = self.verdicts | found
            for pair in [*known][: max(len(known) - _KEPT, 0)]:
                self.verdicts.pop(pair, None)
            self.verdicts |= found
            return [known.get(pair) for pair in pairs], time.monotonic() - begun
        except BaseException:
            self.close()  # part of a worker's line may have been read and lost
            raise
        finally:
            with suppress(RuntimeError):  # this thread does not hold it
                self.lock.release()

    def close(self) -> None:
        """End all processes."""
        while self.workers:
            self.workers.pop().stop()


class _Batch:
    """One dealing of pairs to a pool's workers; `found` takes the verdicts."""

    def __init__(self, pool: Pool, pairs: Sequence[Pair], found: Verdicts) -> None:
        self.pool, self.waiting, self.found = pool, deque(pairs), found
        self.tries: dict[Pair, int] = {}
        self.end, self.may_grow, self.failed_starts = inf, True, 0

    def start(self) -> None:
        """Wait until one worker is ready. Raises RuntimeError or OSError when none can be."""
        while not any(worker.is_ready for worker in self.pool.workers):
            if not self.pool.workers:
                self.pool.workers.append(Worker())
            self._listen()

    def run(self, end: float) -> None:
        """Judge until all is found or time is up; what was not reached then is not found."""
        self.end, patience_ends = end, time.monotonic() + _PATIENCE_S
        try:
            while (self.waiting or self._busy()) and time.monotonic() < end:
                for worker in self.pool.workers:
                    if self.waiting and worker.is_ready and worker.pair is None:
                        worker.give(self.waiting.popleft())
                if self.waiting and (time.monotonic() > patience_ends or not self.pool.workers):
                    self._grow()
                self._listen()
        finally:  # nobody will listen to what they are doing
            for worker in self._busy():
                self._dismiss(worker)

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.pool.workers if worker.pair is not None]

    def _grow(self) -> None:
        """One worker more, where there is work and room for it."""
        workers = self.pool.workers
        loading = sum(not worker.is_ready for worker in workers)
        has_room = self.may_grow and len(workers) < self.pool.most
        if not workers or (has_room and loading < len(self.waiting)):
            try:
                workers.append(Worker())
            except OSError:  # no room for another process
                if not workers:
                    raise
                self.may_grow = False

    def _listen(self) -> None:
        """Wait for the next line of any worker, or for the end of its time."""
        now = time.monotonic()
        active = [each for each in self.pool.workers if each.pair or not each.is_ready]
        until = min([self.end, now + _PATIENCE_S, *(worker.end for worker in active)])
        by_output = {worker.output: worker for worker in active}
        poll = select.poll()
        for output in by_output:
            poll.register(output, select.POLLIN)
        heard = [by_output[output] for output, _ in poll.poll(max(int(1000 * (until - now)), 1))]
        for worker in active:
            line = worker.read() if worker in heard else b""
            is_late = time.monotonic() > worker.end
            if line or line is None or is_late:
                self._hear(worker, line or None, is_late)

    def _hear(self, worker: Worker, line: bytes | None, is_late: bool) -> None:
        """Take an answer; None: the worker has ended, or has used up its time."""
        pair, worker.pair = worker.pair, None
        if pair is None and line == b"ready\n":
            worker.is_ready = True
        elif pair is not None and line in (b"1\n", b"0\n"):
            self.found[pair] = line == b"1\n"
        else:
            said = self._dismiss(worker).decode("utf-8", "replace").strip()
            if pair is None:
                self.may_grow, self.failed_starts = False, self.failed_starts + 1
                # others may go on without it, and it may have been killed by chance
                if not self.pool.workers and self.failed_starts > _TRIES:
                    raise RuntimeError(f"the process for math-verify did not start: {said[-1000:]}")
                return
            self.tries[pair] = self.tries.get(pair, 0) + 1
            timed_out = is_late or worker.process.returncode == -signal.SIGPROF
            if timed_out or self.tries[pair] >= _TRIES:
                self.found[pair] = None
            else:  # killed by something else, which says nothing about the pair
                self.waiting.append(pair)

    def _dismiss(self, worker: Worker) -> bytes:
        self.pool.workers.remove(worker)
        return worker.stop()


def _share_of_cores() -> int:
    """Of the cores that this process may use its part among those of one machine."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    share = int(processes) if processes.isdecimal() else 1
    return max(1, len(os.sched_getaffinity(0)) // max(share, 1))


_pools = [Pool()]  # the last is this process's; those before belong to the processes it came from


def pool() -> Pool:
    """This process's workers."""
    return _pools[-1]


def use_workers(most: int) -> None:
    """Let this process have no more workers than so many."""
    pool().most = most


def _after_fork() -> None:
    """A forked process must not talk over its parent's pipes, nor keep them open."""
    for worker in pool().workers:
        for pipe in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
            if pipe is not None and not pipe.closed:
                os.close(pipe.fileno())
    # kept: the garbage collector would warn of processes that are not this one's
    _pools.append(Pool(pool().most, dict(pool().verdicts)))


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: pool().close())
