"""Comparison of LaTeX answers by value, in worker processes that can be killed at any time.

Python cannot interrupt sympy or a power of large integers, so each comparison runs in a worker that
the system kills after CPU_S of processor time; the parent starts another. Threads and forked
daemons may compare too. Which worker compares a pair, and in what order, changes no verdict."""

import atexit
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from weft_rl.rewards.answers.limits import is_too_costly

# What a worker sends: when it has loaded, and for each pair.
READY, RIGHT, WRONG = b"ready", b"1", b"0"

Pair = tuple[str, str, str]  # the right answer, the given one, the problem

# Processor time, so that a loaded machine does not change verdicts; a usual pair takes some ms.
CPU_S = 2.0
# Wall time of a pair, for a machine that gives its worker no processor.
WALL_S = 20.0
# Loading sympy takes under a second; a busy disk and processor may take long.
_START_S = 120.0
# Usual answers take milliseconds; a further worker, a second of work, is for batches with others.
PATIENCE_S = 1.0
# Of a pair whose worker is killed from outside, and of a start that fails.
_TRIES = 2
# As many verdicts as some training steps need: completions of a prompt often agree.
_CACHED = 4096
# Enough for sympy and its caches, several times what the answers of MATH need.
_MEMORY_BYTES = 2 << 30
# A terminal and a scheduler signal all processes; the parent answers. -P and the package's place at
# the end of the path: nothing in the working directory is imported.
COMMAND = [
    *(sys.executable, "-P", "-c"),
    "import signal, sys; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM,"
    " signal.SIGUSR1)]; sys.path.append(sys.argv[1]);"
    " from weft_rl.rewards.math_subprocess import worker_main; worker_main()",
    str(Path(__file__).parents[2]),
]


class _Worker:
    """A running process, and the pair that it is comparing."""

    def __init__(self, command: Sequence[str]) -> None:
        self.connection, other = Pipe()
        with other:
            self.process = subprocess.Popen(
                [*command, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[other.fileno()],
                # sets in one order everywhere, and so what sympy makes of them
                env=os.environ | {"PYTHONHASHSEED": "0"},
            )
        self.pair: Pair | None = None
        self.is_ready = False
        self.deadline = time.monotonic() + _START_S

    def give(self, pair: Pair, limit_s: float) -> None:
        """Send a pair; a process that has ended shows when its answer is read."""
        self.pair, self.deadline = pair, time.monotonic() + limit_s
        with suppress(OSError):
            self.connection.send(pair)

    def answer(self) -> bytes:
        """Read READY, RIGHT or WRONG; b"" if the process has ended."""
        try:
            return self.connection.recv_bytes(64)
        except (EOFError, OSError):
            return b""

    def stop(self) -> str:
        """Kill the process and return what it wrote on its standard error."""
        self.process.kill()
        self.connection.close()
        return self.process.communicate()[1].decode("utf-8", "replace").strip()


class Pool:
    """Workers, started when they are needed, and a cache of verdicts."""

    def __init__(
        self,
        size: int | None = None,
        command: Sequence[str] = COMMAND,
        pair_limit_s: float = WALL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.size, self.command = size or _share_of_cores(), command
        self.pair_limit_s, self.patience_s = pair_limit_s, patience_s
        self.lock = threading.RLock()
        self.workers: list[_Worker] = []
        self.has_started = False
        self.verdicts: dict[Pair, bool | None] = {}

    def ask(self, pairs: Sequence[Pair], limit_s: float) -> tuple[list[bool | None], float]:
        """Return the verdicts and the seconds of the limit that they took, the first start aside.

        One thread asks at a time; another waits no longer than its own limit."""
        begun = time.monotonic()
        verdicts: dict[Pair, bool | None] = {}
        try:
            # within the try: a signal's handler may raise between taking the lock and noting it
            if any(pair not in self.verdicts for pair in pairs) and self.lock.acquire(
                timeout=max(limit_s, 0)
            ):
                new = [pair for pair in dict.fromkeys(pairs) if pair not in self.verdicts]
                verdicts = dict.fromkeys(pair for pair in new if is_too_costly(pair[1]))
                # short ones first: they are decided even if others use up the time
                waiting = sorted({*new} - {*verdicts}, key=lambda pair: (len(pair[1]), pair))
                if waiting and limit_s > 0:
                    if not self.has_started:  # a cold disk is no fault of the answers
                        self._start_first(begun + _TRIES * _START_S)
                        begun, self.has_started = time.monotonic(), True
                    self._compare(deque(waiting), verdicts, begun + limit_s)
                known = self.verdicts | verdicts
                self.verdicts = dict([*known.items()][-_CACHED:])
                return [known.get(pair) for pair in pairs], time.monotonic() - begun
            return [self.verdicts.get(pair) for pair in pairs], time.monotonic() - begun
        except BaseException:
            self.close()  # the answer to an interrupted pair must not be taken for the next one's
            raise
        finally:
            with suppress(RuntimeError):  # this thread does not hold it
                self.lock.release()

    def close(self) -> None:
        """Kill all workers."""
        while self.workers:
            self.workers.pop().stop()

    def _start_first(self, end: float) -> None:
        """Start a worker and wait until it is ready, at most until `end`. Raises RuntimeError."""
        for _ in range(1 + _TRIES):
            worker = _Worker(self.command)
            self.workers.append(worker)
            limit = min(end, worker.deadline) - time.monotonic()
            if wait([worker.connection], max(limit, 0)) and worker.answer() == READY:
                worker.is_ready = True
                return
            message = self._dismiss(worker)
            if time.monotonic() > end:
                return
        raise RuntimeError(f"the process that compares answers did not start: {message[-1000:]}")

    def _compare(self, waiting: deque[Pair], verdicts: dict[Pair, bool | None], end: float) -> None:
        """Fill `verdicts` until nothing waits or time is up; the rest stays undecided."""
        tries: Counter[Pair] = Counter()
        grow_at, may_grow = time.monotonic() + self.patience_s, True
        try:
            while time.monotonic() < end and (waiting or any(w.pair for w in self.workers)):
                if not self.workers:
                    self._start_first(end)
                elif may_grow and time.monotonic() > grow_at:
                    may_grow = self._grow(len(waiting))
                for worker in self.workers:
                    if waiting and worker.is_ready and worker.pair is None:
                        worker.give(waiting.popleft(), self.pair_limit_s)
                for worker, answer in self._listen(end):
                    pair, worker.pair = worker.pair, None
                    if answer == READY:
                        worker.is_ready = True
                    elif pair is not None and answer in (RIGHT, WRONG):
                        verdicts[pair] = answer == RIGHT
                    else:
                        self._dismiss(worker)
                        if pair is None:  # it did not start; the others go on
                            may_grow = False
                            continue
                        tries[pair] += 1
                        timed_out = answer is None or worker.process.returncode == -signal.SIGPROF
                        if timed_out or tries[pair] >= _TRIES:
                            verdicts[pair] = None
                        else:  # killed from outside, which says nothing about the pair
                            waiting.append(pair)
        finally:  # nobody will read the answers of these
            for worker in [worker for worker in self.workers if worker.pair]:
                self._dismiss(worker)

    def _grow(self, waiting: int) -> bool:
        """Start a further worker where there is work and room; False if the system has no room."""
        loading = sum(not worker.is_ready for worker in self.workers)
        if len(self.workers) < self.size and loading < waiting:
            try:
                self.workers.append(_Worker(self.command))
            except OSError:
                return False
        return True

    def _listen(self, end: float) -> list[tuple[_Worker, bytes | None]]:
        """Wait for workers; return those with an answer, b"" if ended, and None for late ones."""
        active = [worker for worker in self.workers if worker.pair or not worker.is_ready]
        now = time.monotonic()
        until = min([end, now + self.patience_s, *(worker.deadline for worker in active)])
        heard = wait([worker.connection for worker in active], max(until - now, 0.001))
        now = time.monotonic()
        return [
            (worker, worker.answer() if worker.connection in heard else None)
            for worker in active
            if worker.connection in heard or now > worker.deadline
        ]

    def _dismiss(self, worker: _Worker) -> str:
        self.workers.remove(worker)
        return worker.stop()


def _share_of_cores() -> int:
    """The cores that this process may use, divided among the processes of one machine."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    share = int(processes) if processes.isdecimal() else 1
    return max(1, len(os.sched_getaffinity(0)) // max(share, 1))


_pools: dict[int, Pool] = {}


def pool() -> Pool:
    """This process's workers: a forked process must not talk over its parent's pipes."""
    return _pools.setdefault(os.getpid(), Pool())


atexit.register(lambda: pool().close())


def worker_main() -> None:
    """Compare the pairs that the parent sends.

    SIGPROF's default action kills the process when a comparison takes too long. It needs no Python
    code to run, and works when the parent is gone too."""
    from weft_rl.rewards.answers.compare import same_value
    from weft_rl.rewards.answers.copied import is_copied

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    same_value("x+1", "x+2")  # the first parse builds tables for most of a second
    connection = Connection(int(sys.argv[2]))
    connection.send_bytes(READY)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # nobody reads it from here on
    with suppress(EOFError):
        while True:
            right, given, problem = connection.recv()
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            verdict = same_value(right, given)
            if verdict and problem:  # reading a long problem takes up to a second, once
                signal.setitimer(signal.ITIMER_PROF, CPU_S)
                verdict = not is_copied(given, right, problem)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(RIGHT if verdict else WRONG)
