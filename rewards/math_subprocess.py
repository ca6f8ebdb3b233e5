"""Comparison of LaTeX answers by value in worker processes.

Python cannot interrupt sympy, so the system kills a worker after CPU_S of processor time, and the
parent starts another. Threads and forked daemons may compare too. Verdicts do not depend on the
worker or the order."""

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

READY, RIGHT, WRONG = b"ready", b"1", b"0"  # worker messages: ready, then one verdict per pair
_LATE, _GONE = b"late", b""  # no message: the limit has passed, the process has exited

Pair = tuple[str, str, str]  # key, given answer, problem
_STARTING: Pair = ("", "", "")  # what a worker does until it is ready

# CPU time, so that machine load does not change verdicts; a typical pair takes milliseconds.
CPU_S = 2.0
WALL_S = 20.0  # wall time of a pair, in case the worker gets no processor
_START_S = 120.0  # importing sympy takes under 1 s, but longer on a busy machine
# Delay before adding a worker: typical answers take milliseconds, starting a worker 1 s.
PATIENCE_S = 1.0
_TRIES = 2  # attempts for a pair whose worker was killed externally, and for a failed start
_CACHED = 4096  # verdicts of a few training steps; completions of a prompt often agree
_MEMORY_BYTES = 2 << 30  # several times what sympy needs for MATH answers
# Only the parent handles signals. -P, appended sys.path: no imports from the working directory.
COMMAND = [
    *(sys.executable, "-P", "-c"),
    "import signal, sys; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM,"
    " signal.SIGUSR1)]; sys.path.append(sys.argv[1]);"
    " from weft_rl.rewards.math_subprocess import worker_main; worker_main()",
    str(Path(__file__).parents[2]),
]


class _Worker:
    def __init__(self, command: Sequence[str]) -> None:
        self.connection, other = Pipe()
        with other:
            self.process = subprocess.Popen(
                [*command, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[other.fileno()],
                # fixed set order makes sympy deterministic
                env=os.environ | {"PYTHONHASHSEED": "0"},
            )
        self.pair: Pair | None = _STARTING
        self.deadline = time.monotonic() + _START_S

    def give(self, pair: Pair, limit_s: float) -> None:
        """Send a pair; if the process has exited, reading its answer shows it."""
        self.pair, self.deadline = pair, time.monotonic() + limit_s
        with suppress(OSError):
            self.connection.send(pair)

    def answer(self) -> bytes:
        """Read a message, without waiting."""
        with suppress(EOFError, OSError):
            return self.connection.recv_bytes(64) if self.connection.poll() else _LATE
        return _GONE

    def stop(self) -> str:
        """Kill the process and return its stderr."""
        self.process.kill()
        self.connection.close()
        return self.process.communicate()[1].decode("utf-8", "replace").strip()


class Pool:
    """Lazily started workers and a cache of verdicts."""

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
        """Return the verdicts and the seconds used, without the first worker start.

        One thread asks at a time; the others wait at most their own limit."""
        begun, known = time.monotonic(), self.verdicts
        try:
            # inside try: a signal handler may raise right after the lock is acquired
            if any(pair not in known for pair in pairs) and self.lock.acquire(
                timeout=max(limit_s, 0)
            ):
                new = [pair for pair in dict.fromkeys(pairs) if pair not in self.verdicts]
                verdicts = dict.fromkeys(pair for pair in new if is_too_costly(pair[1]))
                # short pairs first, so that slow ones cannot use up their time
                waiting = sorted({*new} - {*verdicts}, key=lambda pair: (len(pair[1]), pair))
                if limit_s > 0:
                    begun = self._compare(deque(waiting), verdicts, begun, limit_s)
                known = self.verdicts | verdicts
                self.verdicts = dict([*known.items()][-_CACHED:])
            return [known.get(pair) for pair in pairs], time.monotonic() - begun
        except BaseException:
            self.close()  # a stale answer must not be read as the next pair's
            raise
        finally:
            with suppress(RuntimeError):  # this thread does not hold it
                self.lock.release()

    def close(self) -> None:
        """Kill all workers."""
        while self.workers:
            self.workers.pop().stop()

    def _compare(
        self,
        waiting: deque[Pair],
        verdicts: dict[Pair, bool | None],
        begun: float,
        limit_s: float,
    ) -> float:
        """Fill `verdicts` until all pairs are done or time is up; the others stay undecided.

        Returns when the time began: a cold disk does not count against the answers. Raises
        RuntimeError or OSError if no worker starts."""
        tries: Counter[Pair] = Counter()
        count, may_grow, grow_at = len(verdicts) + len(waiting), True, begun + self.patience_s
        end = begun + (limit_s if self.has_started else _TRIES * _START_S)
        try:
            while len(verdicts) < count and time.monotonic() < end:
                if not self.workers:
                    self.workers.append(_Worker(self.command))
                elif may_grow and time.monotonic() > grow_at:
                    may_grow = self._grow(len(waiting))
                for worker in self.workers:
                    if waiting and worker.pair is None:
                        worker.give(waiting.popleft(), self.pair_limit_s)
                for worker in self._heard(end):
                    answer, pair, worker.pair = worker.answer(), worker.pair, None
                    if pair == _STARTING and answer == READY:
                        if not self.has_started:
                            self.has_started, begun = True, time.monotonic()
                            end, grow_at = begun + limit_s, begun + self.patience_s
                    elif pair is not None and answer in (RIGHT, WRONG):
                        verdicts[pair] = answer == RIGHT
                    elif pair is not None:
                        message = self._dismiss(worker)
                        tries[pair] += 1
                        timed_out = answer == _LATE or worker.process.returncode == -signal.SIGPROF
                        if pair == _STARTING:  # the other workers continue
                            may_grow = False
                            if not self.workers and tries[pair] > _TRIES:
                                raise RuntimeError(f"no worker process starts: {message[-1000:]}")
                        elif timed_out or tries[pair] >= _TRIES:
                            verdicts[pair] = None
                        else:  # killed externally: no verdict
                            waiting.append(pair)
        finally:  # nobody reads these answers
            for worker in [w for w in self.workers if w.pair not in (None, _STARTING)]:
                self._dismiss(worker)
        return begun

    def _grow(self, waiting: int) -> bool:
        """Start another worker if there is work and capacity; False if the system refuses."""
        loading = sum(worker.pair == _STARTING for worker in self.workers)
        if len(self.workers) < self.size and loading < waiting:
            try:
                self.workers.append(_Worker(self.command))
            except OSError:
                return False
        return True

    def _heard(self, end: float) -> list[_Worker]:
        """Wait for workers; return those that have answered, have exited or are late."""
        active = [worker for worker in self.workers if worker.pair]
        now = time.monotonic()
        until = min([end, now + self.patience_s, *(worker.deadline for worker in active)])
        heard = wait([worker.connection for worker in active], max(until - now, 0.001))
        now = time.monotonic()
        return [w for w in active if w.connection in heard or now > w.deadline]

    def _dismiss(self, worker: _Worker) -> str:
        self.workers.remove(worker)
        return worker.stop()


def _share_of_cores() -> int:
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    share = int(processes) if processes.isdecimal() else 1
    return max(1, len(os.sched_getaffinity(0)) // max(share, 1))


_pools: dict[int, Pool] = {}


def pool() -> Pool:
    """Return the pool of this process; forked processes must not share their parent's pipes."""
    return _pools.setdefault(os.getpid(), Pool())


atexit.register(lambda: pool().close())


def worker_main() -> None:
    """Compare the pairs that the parent sends.

    SIGPROF's default action kills the process on timeout, without Python code or a living parent.
    """
    from weft_rl.rewards.answers.compare import same_value
    from weft_rl.rewards.answers.copied import is_copied

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    same_value("x+1", "x+2")  # warm-up: the first parse builds tables for almost 1 s
    connection = Connection(int(sys.argv[2]))
    connection.send_bytes(READY)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # stderr is unread from here on
    with suppress(EOFError):
        while True:
            right, given, problem = connection.recv()
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            is_right = same_value(right, given)
            if is_right and problem:  # parsing a long problem takes up to 1 s
                signal.setitimer(signal.ITIMER_PROF, CPU_S)
                is_right = not is_copied(given, right, problem)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(RIGHT if is_right else WRONG)
