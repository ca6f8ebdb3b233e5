"""Comparisons in processes of their own: limits, several at once, killed workers, signals."""

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from weft_rl.rewards.answers import pool as math_pool
from weft_rl.rewards.answers import worker as math_worker
from weft_rl.rewards.answers.judge import is_solved, judge_ahead, judge_pairs, judging
from weft_rl.rewards.answers.limits import is_too_costly
from weft_rl.rewards.answers.pool import Pool, Worker

FIXTURES = Path(__file__).parent / "fixtures"
GOLD = json.loads((FIXTURES / "gold_answers.json").read_text("utf-8"))["math500"]
HALF = (r"\frac12", "0.5", "")
# Answers as the worker does, by the letters of the texts, at once and in ways that can be foreseen.
STUB = """
import json, os, signal, sys, time
print("ready", flush=True)
for line in sys.stdin:
    right, given, problem = json.loads(line)
    if given.startswith("slow"):
        time.sleep(1000)
    if given.startswith("limit"):
        os.kill(os.getpid(), signal.SIGPROF)
    if given.startswith("killed") or (given == "once" and not os.path.exists(right)):
        open(right, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if given.startswith("memory"):
        raise MemoryError
    print(int(right == given or given == "once"), flush=True)
"""


@pytest.fixture
def stub(monkeypatch):
    """Pools whose workers are stubs; their processes are ended behind the test."""
    monkeypatch.setattr(math_pool, "_COMMAND", [sys.executable, "-S", "-c", STUB])
    pools = []

    def make(most=1):
        pools.append(Pool(most))
        return pools[-1]

    yield make
    for each in pools:
        each.close()


def nested(left, core, right, depth):
    return left * depth + core + right * depth


HOSTILE = [
    *(
        nested("9^{", "9", "}", 20),
        "9^9^9^9",
        "9**9**9",
        "(" * 30 + "9" + "^9)" * 30,
        "2^{10^{10}}",
    ),
    *(nested("(", "1", ")", 40), nested("{", "1", "}", 40), nested("[", "x", "]", 40)),
    *(nested(r"\left(", "x", r"\right)", 15), nested(r"\frac{1}{1+", "x", "}", 20)),
    *(nested(r"\frac{", "1", "}{2}", 20), nested(r"\binom{9", "9", "}{3}", 15)),
    *(nested(r"\sqrt{1+", "2", "}", 20), nested(r"\sin(", "x", ")", 20), "3" + "!" * 20),
    *(nested("(", "9", ")!", 20), "99999999!", r"\binom{100000000}{50000000}", "(x+1)^{100000}"),
    *("(a+b+c+d+e)^{99}", r"\sum_{n=1}^{99999}\frac1n", r"\prod_{n=1}^{9999}n", "9^{99999}"),
    *(nested(r"\int_0^1 ", "x", " dx", 10), nested("|", "x", "|", 40), "(x+1)^{9}" * 12),
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


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_refused_unread(text):
    assert is_too_costly(text)
    pool = Pool()
    assert pool.ask([("3", text, "")], 60.0)[0] == [None]
    assert pool.workers == []  # no process was started


def test_refusing_takes_no_time():
    texts = [mark * 300 for mark in "({^!9x|)\\\ud800"] + ["9^" * 150, "9!" * 150, "{}" * 150]
    start = time.process_time()
    for text in texts * 20:
        is_too_costly(text)
    assert time.process_time() - start < 5  # under a tenth of a second


def test_a_batch_has_the_verdicts_of_single_pairs():
    pairs = [(rf"\frac{{{k}}}{{4}}", "0.5", "") for k in range(12)] + [HALF, HALF]
    pairs.append(("1024", "2^{10}", "Compute $2^{10}$."))
    wanted = [k == 2 for k in range(12)] + [True, True, False]
    assert judge_pairs(pairs, 600.0) == wanted
    assert [is_solved(*pair) for pair in pairs] == wanted


def test_a_start_after_the_first_counts(stub, monkeypatch):
    pool = stub()
    assert pool.ask([("1", "slow", "")], 1.0)[0] == [None]
    monkeypatch.setattr(math_pool, "_COMMAND", ["sleep", "1000"])  # loads for ever
    start = time.monotonic()
    assert pool.ask([("3", "3", "")], 2.0)[0] == [None]
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("most", [1, 3])
def test_a_batch_ends_with_its_limit(stub, monkeypatch, most):
    """However many texts are slow: what is quick is decided, what is not reached is left."""
    monkeypatch.setattr(math_pool, "WALL_S", 1.0)
    pool = stub(most)
    pairs = [(str(k), f"slow{k}", "") for k in range(200)] + [(str(k), "3", "") for k in range(6)]
    start = time.monotonic()
    verdicts, seconds = pool.ask(pairs, 4.0)
    taken = time.monotonic() - start
    assert verdicts[-6:] == [k == 3 for k in range(6)]
    assert verdicts[:-6] == [None] * 200
    # one after the other they would take 200 seconds
    assert 4.0 <= seconds <= taken < 40.0


def test_several_workers_share_what_takes_long(stub, monkeypatch):
    monkeypatch.setattr(math_pool, "WALL_S", 2.0)
    monkeypatch.setattr(math_pool, "_PATIENCE_S", 0.0)
    start = time.monotonic()
    pool = stub(8)
    assert pool.ask([("1", f"slow{k}", "") for k in range(8)], 600.0)[0] == [None] * 8
    assert len(pool.verdicts) == 8
    assert time.monotonic() - start < 14  # one after the other takes 16


def test_what_ran_out_of_time_is_not_asked_again(stub):
    pool = stub()
    pairs = [("3", "limit", ""), ("3", "memory", ""), ("3", "3", "")]
    assert pool.ask(pairs, 60.0)[0] == [None, None, True]
    kept = [*pool.workers]
    assert [pool.ask(pairs, 60.0)[0] for _ in range(100)] == [[None, None, True]] * 100
    assert pool.workers == kept


def test_a_pair_whose_worker_is_killed_is_asked_again(stub, tmp_path):
    pool = stub()
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    pairs = [(first, "once", ""), (second, "once", ""), ("3", "3", "")]
    assert pool.ask(pairs, 60.0)[0] == [True, True, True]
    # but not for ever
    assert pool.ask([(str(tmp_path / "c"), "killed", "")], 60.0)[0] == [None]
    assert pool.ask([("4", "3", "")], 60.0)[0] == [False]


def test_without_time_nothing_is_started_or_ended():
    pool = Pool()
    assert pool.ask([HALF], 0.0)[0] == [None]
    assert pool.workers == []
    assert pool.ask([HALF], 60.0)[0] == [True]
    kept = [*pool.workers]
    assert pool.ask([("7", "7.5", "")], -1.0)[0] == [None]
    assert pool.ask([("7", "7.5", ""), HALF], 60.0)[0] == [False, True]
    assert pool.workers == kept
    pool.close()


def test_a_worker_that_is_killed_changes_no_verdict():
    pool = Pool(1)
    pairs = [(rf"\frac{{{k}}}{{7}}", "0.5", "") for k in range(40)] + [HALF]
    pool.ask([HALF], 60.0)

    def kill():
        for _ in range(3):
            time.sleep(0.05)
            for worker in [*pool.workers]:
                worker.process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    verdicts = pool.ask(pairs, 120.0)[0]
    thread.join()
    assert verdicts[-1] is True
    # of a pair that was killed twice nothing is known
    assert set(verdicts[:-1]) <= {False, None}
    assert verdicts.count(None) <= 1
    pool.close()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_to_the_whole_group_leave_workers_alone(sent):
    pool = Pool(1)
    pool.ask([HALF], 60.0)
    os.kill(pool.workers[0].process.pid, sent)
    kept = [*pool.workers]
    assert pool.ask([("4", "4.5", "")], 60.0)[0] == [False]
    assert pool.workers == kept
    pool.close()


def test_an_interrupted_batch_leaves_no_answer_to_the_next():
    pool = Pool(1)
    pool.ask([HALF], 60.0)

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    def ask_on():
        while True:  # what is asked for must not be answered with the verdict of another pair
            assert pool.ask([(f"{time.monotonic_ns()}", "0.5", "")], 60.0)[0] == [False]

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for delay in (0.001, 0.02, 0.3):
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(Stop):
                ask_on()
            assert pool.ask([(f"\\frac{{{delay}}}{{2}}", f"{delay / 2}", "")], 60.0)[0] == [True]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    pool.close()


def test_a_process_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(math_pool, "_COMMAND", ["sh", "-c", "echo no such module >&2"])
    pool = Pool()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="did not start: no such module"):
            pool.ask([HALF], 60.0)
    assert pool.workers == []


def test_others_go_on_when_a_further_process_cannot_start(monkeypatch):
    pool = Pool(3)
    pool.ask([HALF], 60.0)
    monkeypatch.setattr(math_pool, "_COMMAND", ["sh", "-c", "exit 1"])
    monkeypatch.setattr(math_pool, "_PATIENCE_S", 0.0)
    pairs = [(f"{k}", "3", "") for k in range(30)]
    assert pool.ask(pairs, 120.0)[0] == [k == 3 for k in range(30)]
    pool.close()


def test_a_batch_counts_what_is_undecided():
    with judging(4) as batch:
        texts = ["0.5", "9^{9^{9}}", "0.25", "(" * 20]
        judge_ahead(batch, lambda: [is_solved(r"\frac12", text, "") for text in texts])
        assert batch.undecided == 0
        found = [is_solved(r"\frac12", text, "") for text in texts]
        assert (found, batch.undecided) == ([True, None, False, None], 2)
    assert is_solved(*HALF) is True


def test_a_batch_whose_time_is_used_up():
    with judging(1) as batch:
        batch.left_s = 0.0
        assert is_solved("1", "1.75", "") is None
        assert is_solved("1", "1.875", "") is None
        assert batch.undecided == 2
    assert is_solved("1", "1.75", "") is False  # was not judged, so it is not kept


def test_in_threads_and_in_an_event_loop():
    found = []
    threads = [
        threading.Thread(
            target=lambda k=k: found.append(is_solved(rf"\frac{{{k}}}{{8}}", "0.5", ""))
        )
        for k in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [False] * 5 + [True]

    async def one(k):
        with judging(1) as batch:
            await asyncio.sleep(0)
            return is_solved(f"{k}", "3.0", ""), batch.undecided

    async def every():
        return await asyncio.gather(*(one(k) for k in range(5)))

    assert asyncio.run(every()) == [(k == 3, 0) for k in range(5)]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_forked_daemons_beside_their_parent():
    assert is_solved(*HALF)  # a process that the fork must leave alone
    with multiprocessing.get_context("fork").Pool(3) as forked:  # daemonic, may have no children
        pairs = [("0.5", rf"\frac{{{k}}}{{10}}", "") for k in range(12)]
        assert forked.starmap(is_solved, pairs) == [k == 5 for k in range(12)]
    assert is_solved(r"\frac25", "4/10", "")


def test_the_process_ends_with_its_input():
    worker = Worker()
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.process.wait(60) == 0
    worker.stop()


def test_the_limit_needs_no_parent():
    """A parent that is killed leaves no process behind that computes for ever."""
    worker = Worker()
    worker.give(("3", r"\binom{1000000}{500000}", ""))
    assert worker.process.wait(math_worker.CPU_S + 120) == -signal.SIGPROF
    worker.stop()


def test_nothing_is_written_and_nothing_of_the_working_directory_is_read(tmp_path):
    (tmp_path / "sympy.py").write_text("raise SystemExit(7)")
    (tmp_path / "rewards.py").write_text("raise SystemExit(7)")
    code = "from weft_rl.rewards.answers.judge import is_solved\n"
    code += r"print(is_solved(r'\frac12', '0.5', ''))"
    root = str(Path(__file__).parents[1])
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.append({root!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert sorted(tmp_path.iterdir()) == before
