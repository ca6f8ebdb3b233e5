"""Comparisons in worker processes: limits, several at once, killed workers, signals, forks."""

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from weft_rl.rewards.answers.limits import is_too_costly
from weft_rl.rewards.math500 import is_equivalent, judge_ahead, judging
from weft_rl.rewards.math_subprocess import CPU_S, Pool

FIXTURES = Path(__file__).parent / "fixtures"
GOLD = json.loads((FIXTURES / "gold_answers.json").read_text("utf-8"))["math500"]
HALF = (r"\frac12", "0.5", "")
# Answers as the worker does, by the letters of the texts, at once and in ways that can be foreseen.
STUB = """
import os, signal, sys, time
from multiprocessing.connection import Connection
parent = Connection(int(sys.argv[-1]))
parent.send_bytes(b"ready")
while True:
    right, given, problem = parent.recv()
    if given.startswith("slow"):
        time.sleep(1000)
    if given.startswith("limit"):
        os.kill(os.getpid(), signal.SIGPROF)
    if given.startswith("killed") or (given == "once" and not os.path.exists(right)):
        open(right, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if given.startswith("memory"):
        raise MemoryError
    parent.send_bytes(b"1" if right == given or given == "once" else b"0")
"""
STUB_COMMAND = [sys.executable, "-S", "-c", STUB]


@pytest.fixture
def make_pool():
    """Makes pools whose processes are killed after the test."""
    pools = []
    yield lambda size=1, **options: pools.append(Pool(size, **options)) or pools[-1]
    for pool in pools:
        pool.close()


@pytest.fixture
def stub(make_pool):
    return lambda size=1, **options: make_pool(size, command=STUB_COMMAND, **options)


def hostile():
    """Texts that would take the parser or sympy for ever."""
    nestings = [
        *(("9^{", "9", "}", 20), ("(", "1", ")", 40), ("{", "1", "}", 40), ("[", "x", "]", 40)),
        *((r"\left(", "x", r"\right)", 15), (r"\frac{1}{1+", "x", "}", 20), ("|", "x", "|", 40)),
        *((r"\frac{", "1", "}{2}", 20), (r"\binom{9", "9", "}{3}", 15), ("(", "9", ")!", 20)),
        *((r"\sqrt{1+", "2", "}", 20), (r"\sin(", "x", ")", 20), (r"\int_0^1 ", "x", " dx", 10)),
    ]
    return [
        *(left * depth + core + right * depth for left, core, right, depth in nestings),
        *("9^9^9^9", "9**9**9", "(" * 30 + "9" + "^9)" * 30, "2^{10^{10}}", "3" + "!" * 20),
        *("99999999!", r"\binom{100000000}{50000000}", "(x+1)^{100000}", "(a+b+c+d+e)^{99}"),
        *(r"\sum_{n=1}^{99999}\frac1n", r"\prod_{n=1}^{9999}n", "9^{99999}", "(x+1)^{9}" * 12),
        *(r"\begin{pmatrix}" + "1&" * 200 + r"1\end{pmatrix}", "(9^{99})^{99}^{99}"),
    ]


def spellings(key):
    yield from (key, key.replace("frac", "dfrac"), key.replace("^", "**"), " ".join(key))
    for form in (
        *(r"\left({}\right)", "(({}))", r"\boxed{{{}}}", r"\mathbf{{\left[{}\right]}}", "x = {}"),
        *(r"\text{{{}}}", r"{}\text{{ cubic centimeters per second}}^3", "**{}**", r"\[{}\]"),
        *("-(-({}))", r"1 \cdot {} + 0", "{0} = {0}", "({})^2", r"\sqrt{{({})^2}}", "{0}, {0}"),
    ):
        yield form.format(key)


def test_no_answer_of_the_data_set_is_too_costly():
    assert [text for key in GOLD for text in spellings(key) if is_too_costly(text)] == []
    fair = [r"2^{2005}", "999!", r"\binom{2005}{3}", r"e^{x^2}", r"\frac{12!}{3!4!5!}", "3^{3^3}"]
    fair += [r"(2+\sqrt{3})^{20}", r"\left(\frac34\right)^{100}", "1" * 80, "|x-3|+|x+3|<5"]
    assert [text for text in fair if is_too_costly(text)] == []


def test_hostile_texts_are_refused_unread():
    assert [text for text in hostile() if not is_too_costly(text)] == []
    pool = Pool(command=["no such program"])
    assert {*pool.ask([("3", text, "") for text in hostile()], 60.0)[0]} == {None}
    texts = [mark * 300 for mark in "({^!9x|)\\\ud800"] + ["9^" * 150, "9!" * 150, "{}" * 150]
    start = time.process_time()
    for text in texts * 20:
        is_too_costly(text)
    assert time.process_time() - start < 5  # under a tenth of a second


@pytest.mark.slow
def test_a_batch_has_the_verdicts_of_single_pairs(make_pool):
    pairs = [(rf"\frac{{{k}}}{{4}}", "0.5", "") for k in range(5)] + [HALF]
    pairs.append(("1024", "2^{10}", "Compute $2^{10}$."))
    expected = [k == 2 for k in range(5)] + [True, False]
    assert make_pool().ask(pairs, 600.0)[0] == expected
    assert make_pool(2, patience_s=0.0).ask(pairs[::-1], 600.0)[0] == expected[::-1]
    assert [is_equivalent(*pair) for pair in pairs] == expected


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_ends_with_its_limit(stub, size):
    """However many texts are slow: what is quick is decided, what is not reached is left."""
    pairs = [(str(k), f"slow{k}", "") for k in range(200)] + [(str(k), "3", "") for k in range(6)]
    start = time.monotonic()
    verdicts, seconds = stub(size, pair_limit_s=0.5).ask(pairs, 1.5)
    duration = time.monotonic() - start
    assert verdicts == [None] * 200 + [k == 3 for k in range(6)]
    # one after the other they would take 100 seconds
    assert 1.5 <= seconds <= duration < 40.0


def test_a_start_after_the_first_counts(stub):
    pool = stub()
    assert pool.ask([("1", "slow", "")], 0.5)[0] == [None]
    pool.command = ["sleep", "1000"]  # loads forever
    start = time.monotonic()
    assert pool.ask([("3", "3", "")], 0.5)[0] == [None]
    assert time.monotonic() - start < 30


@pytest.mark.slow
def test_several_workers_share_what_takes_long(stub):
    pool = stub(8, pair_limit_s=2.0, patience_s=0.0)
    start = time.monotonic()
    assert pool.ask([("1", f"slow{k}", "") for k in range(8)], 600.0)[0] == [None] * 8
    assert time.monotonic() - start < 14  # one after the other takes 16


def test_what_ran_out_of_time_is_not_asked_again(stub):
    pool = stub()
    pairs = [("3", "limit", ""), ("3", "memory", ""), ("3", "3", "")]
    for command in (STUB_COMMAND, ["no such program"]):
        pool.command = command
        assert pool.ask(pairs, 60.0)[0] == [None, None, True]
        pool.close()


def test_a_pair_whose_worker_is_killed_is_asked_again(stub, tmp_path):
    pool, files = stub(), [str(tmp_path / name) for name in "abc"]
    pairs = [(files[0], "once", ""), (files[1], "once", ""), ("3", "3", "")]
    assert pool.ask(pairs, 60.0)[0] == [True, True, True]
    assert pool.ask([(files[2], "killed", "")], 60.0)[0] == [None]  # but not forever
    assert pool.ask([("4", "3", "")], 60.0)[0] == [False]


def test_without_time_nothing_is_started_or_ended(stub):
    pool = stub()
    assert pool.ask([HALF], 0.0)[0] == [None]
    assert pool.workers == []
    assert pool.ask([("1", "1", "")], 60.0)[0] == [True]
    before = [*pool.workers]
    assert pool.ask([HALF], -1.0)[0] == [None]
    assert pool.ask([HALF], 60.0)[0] == [False]
    assert pool.workers == before


def test_signals_to_the_whole_group_leave_workers_alone(make_pool):
    pool = make_pool()
    pool.ask([HALF], 60.0)
    before = [*pool.workers]
    for k, sent in enumerate([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]):
        os.kill(pool.workers[0].process.pid, sent)
        assert pool.ask([("4", f"{k}.5", "")], 60.0)[0] == [False]
    assert pool.workers == before


def test_an_interrupted_batch_leaves_no_answer_to_the_next(stub):
    pool = stub()

    class Stop(Exception):
        """Not an OSError, which a lost process would be."""

    def stop(*_):
        raise Stop

    def ask_forever():
        while True:  # what is asked for must not be answered with the verdict of another pair
            number = f"{time.monotonic_ns()}"
            assert pool.ask([(number, number, "")], 60.0)[0] == [True]

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for delay in (0.001, 0.02, 0.3):
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(Stop):
                ask_forever()
            assert pool.ask([("0", f"{delay}", "")], 60.0)[0] == [False]
            with ThreadPoolExecutor(1) as thread:  # the lock is free
                thread.submit(pool.ask, [(f"{delay}", "", "")], 60.0).result(30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_processes_that_cannot_start(make_pool, stub):
    pool = make_pool(command=["sh", "-c", "echo no such module >&2"])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such module"):
            pool.ask([HALF], 60.0)
    assert pool.workers == []
    # others go on without a further one
    pool = stub(3, patience_s=0.0)
    assert pool.ask([HALF], 60.0)[0] == [False]
    pool.command = ["sh", "-c", "exit 1"]
    pairs = [(f"{k}", "3", "") for k in range(30)]
    assert pool.ask(pairs, 120.0)[0] == [k == 3 for k in range(30)]


def test_a_batch_counts_what_is_undecided():
    with judging(4) as batch:
        texts = ["0.5", "9^{9^{9}}", "0.25", "(" * 20]
        judge_ahead(batch, lambda: [is_equivalent(r"\frac12", text, "") for text in texts])
        assert batch.undecided == 0
        verdicts = [is_equivalent(r"\frac12", text, "") for text in texts]
        assert (verdicts, batch.undecided) == ([True, None, False, None], 2)
    with judging(1) as batch:
        batch.left_s = 0.0
        assert [is_equivalent("1", text, "") for text in ("1.75", "1.875")] == [None, None]
        assert batch.undecided == 2
    assert is_equivalent("1", "1.75", "") is False  # was not judged, so it is not kept


def test_in_threads_and_in_an_event_loop():
    with ThreadPoolExecutor(6) as threads:
        keys = [rf"\frac{{{k}}}{{8}}" for k in range(6)]
        verdicts = [*threads.map(lambda key: is_equivalent(key, "0.5", ""), keys)]
    assert verdicts == [k == 4 for k in range(6)]

    async def one(k):
        with judging(1) as batch:
            await asyncio.sleep(0)
            return is_equivalent(f"{k}", "3.0", ""), batch.undecided

    async def every():
        return await asyncio.gather(*(one(k) for k in range(5)))

    assert asyncio.run(every()) == [(k == 3, 0) for k in range(5)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_forked_daemons_beside_their_parent():
    assert is_equivalent(*HALF)  # a process that the fork must leave alone
    with multiprocessing.get_context("fork").Pool(2) as forked:  # daemonic, may have no children
        pairs = [("0.5", rf"\frac{{{k}}}{{10}}", "") for k in range(12)]
        assert forked.starmap(is_equivalent, pairs) == [k == 5 for k in range(12)]
    assert is_equivalent(r"\frac25", "4/10", "")


@pytest.mark.slow
def test_a_process_ends_with_its_parent_or_at_its_limit(make_pool):
    """A parent that is killed leaves no process behind that computes forever."""
    pair = ("3", r"\binom{1000000}{500000}", "")
    for leave, status in ((lambda w: w.give(pair, 1.0), -signal.SIGPROF), (None, 0)):
        pool = make_pool()
        pool.ask([HALF], 60.0)
        (worker,) = pool.workers
        leave(worker) if leave else worker.connection.close()
        assert worker.process.wait(CPU_S + 120) == status


@pytest.mark.slow
def test_nothing_is_written_and_nothing_of_the_working_directory_is_read(tmp_path):
    for name in ("sympy.py", "rewards.py"):
        (tmp_path / name).write_text("raise SystemExit(7)")
    root, before = str(Path(__file__).parents[1]), sorted(tmp_path.iterdir())
    code = f"import sys; sys.path.append({root!r})\n"
    code += "from weft_rl.rewards.math500 import is_equivalent\n"
    code += r"print(is_equivalent(r'\frac12', '0.5', ''))"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert sorted(tmp_path.iterdir()) == before
