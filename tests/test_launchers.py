"""Where a sweep's runs go: failing ones are tried again, signals passed on; each launcher."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import ModuleType, SimpleNamespace

import pytest

import weft_rl
from weft_rl.errors import UserError
from weft_rl.sweeps.config import SweepConfig
from weft_rl.sweeps.jobs import Job, Pool, check_launcher, open_pool, run_in, workers_and_threads
from weft_rl.sweeps.launchers.base import Command, Forwarding

# Stands where `weft_rl.pipeline` does: counts its tries in its run's log, then does as it is told.
CHILD = """
import os, pathlib, signal, sys, time
how, log = sys.argv[1], pathlib.Path(sys.argv[2])
tries = log.read_text().count("try") + 1 if log.exists() else 1
log.open("a").write("try\\n")
if how == "killed first" and tries == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if how == "stopped first" and tries == 1:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    log.with_suffix(".ready").touch()
    time.sleep(60)
if how == "slow to stop":
    def checkpoint(*_):
        time.sleep(3)
        log.with_suffix(".saved").touch()
        sys.exit(3)
    signal.signal(signal.SIGTERM, checkpoint)
    log.with_suffix(".ready").touch()
    time.sleep(60)
print("threads", os.environ["OMP_NUM_THREADS"], flush=True)
sys.exit(int(how) if how.isdigit() else 0)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A sweep's folder, in which `python -m weft_rl.pipeline HOW out=...` is the child above."""
    package = tmp_path / "path" / "weft_rl"
    package.mkdir(parents=True)
    # all but the pipeline is the package's own, which a launcher's process may need
    (package / "__init__.py").write_text(f"__path__.append({weft_rl.__path__[0]!r})")
    text = CHILD.replace("sys.argv[2]", "sys.argv[-1].removeprefix('out=') + '.tries'")
    (package / "pipeline.py").write_text(text)
    monkeypatch.chdir(tmp_path / "path")  # python -m looks there first
    (tmp_path / "sweep" / "logs").mkdir(parents=True)
    return tmp_path / "sweep"


def tries(folder, name):
    return (folder / f"{name}.tries").read_text().count("try")


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.02)


def words(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode().split("\0")
    except OSError:  # it has ended meanwhile
        return []


def processes(*wanted):
    """The processes with these words in their command lines."""
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and {*wanted} <= {*words(p)}]


def signalled(ready, number, *wanted):
    """A thread that sends a signal to the process of these words once a file is there."""

    def send():
        wait_until(ready.exists)
        for pid in processes(*wanted):
            os.kill(pid, number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def command(folder, how):
    argv = [sys.executable, "-m", "weft_rl.pipeline", how, f"out={folder / 'one'}"]
    return Command(argv, folder.parent / "path", folder / "logs" / "one.log", 3)


JOBS = [Job("dies", ["killed first"]), Job("fails", ["1"]), Job("wrong", ["2"]), Job("good", ["0"])]


# One run dies once, one fails always, one fails by a mistake, one works. What trying again cannot
# help is not tried again; what always fails, as often as was asked.
STATUSES = {"dies": 0, "fails": 1, "wrong": 2, "good": 0}
TRIES = {"dies": 2, "fails": 2, "wrong": 1, "good": 1}


def outcome(pool, folder):
    """The statuses of the jobs, and how often each was tried."""
    statuses = run_in(pool, JOBS, folder, 4)
    return statuses, {job.name: tries(folder, job.name) for job in JOBS}


def test_failures_are_tried_again(folder, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert outcome(Pool(2, 3, retries=1), folder) == (STATUSES, TRIES)
    said = capsys.readouterr().out
    assert "dies: killed by signal 9 after" in said
    assert "fails: stopped, status 1, after" in said
    assert said.count("is tried again (1 of 1)") == 2
    assert "threads 3" in (folder / "logs" / "dies.log").read_text()


def test_a_stopped_run_goes_on(folder):
    out = f"out={folder / 'stops'}"
    thread = signalled(folder / "stops.ready", signal.SIGTERM, "weft_rl.pipeline", out)
    job = Job("stops", ["stopped first"])
    assert run_in(Pool(1, 1, retries=1), [job], folder, 1) == {"stops": 0}
    thread.join()
    assert tries(folder, "stops") == 2


def test_a_signal_reaches_the_command(folder):
    before = signal.getsignal(signal.SIGTERM)

    def send():
        wait_until((folder / "one.ready").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    assert Forwarding(command(folder, "stopped first"))() == 3
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before


HERE = ["cluster=local", "timeout_min=5"]  # submitit's local executor


def cluster(folder, launcher, **options):
    return open_pool(SweepConfig(launcher=launcher, **options), folder, 4, 3)


def test_submitit(folder):
    pytest.importorskip("submitit")
    pool = cluster(folder, "submitit", resources=HERE)
    assert outcome(pool, folder) == (STATUSES, TRIES)
    for wrong in ("gpu=1", "timeout_min=long", "cluster=nowhere"):
        with pytest.raises(UserError, match="resources: submitit does not take them"):
            cluster(folder, "submitit", resources=[*HERE, wrong])


def test_submitit_before_the_time_limit(folder):
    """On the signal that comes before the limit the run is stopped, and submitted again."""
    pytest.importorskip("submitit")
    pool = cluster(folder, "submitit", resources=HERE)
    task = ("submitit.core._submit", str(folder / "logs" / "submitit"))
    thread = signalled(folder / "one.ready", signal.SIGUSR2, *task)
    submitted = pool.start(command(folder, "stopped first"))
    try:
        thread.join()
        wait_until(lambda: submitted.poll() is not None)
        assert (submitted.poll(), tries(folder, "one")) == (0, 2)
    finally:
        submitted.terminate()


def test_submitit_is_stopped(folder):
    pytest.importorskip("submitit")
    pool = cluster(folder, "submitit", resources=HERE)
    submitted = pool.start(command(folder, "stopped first"))
    wait_until((folder / "one.ready").exists)
    running = processes(f"out={folder / 'one'}")
    assert running
    submitted.terminate()
    submitted.wait()
    wait_until(lambda: not processes(f"out={folder / 'one'}"))
    # stopped for good: nothing began anew in its place
    assert tries(folder, "one") == 1


# A sweep of one run in a process of its own, as a terminal would have it.
SWEEP = """
import sys
from pathlib import Path
from weft_rl.cli import execute
from weft_rl.sweeps.config import SweepConfig
from weft_rl.sweeps.jobs import Job, open_pool, run_in
folder, *resources = sys.argv[1:]
pool = open_pool(SweepConfig(launcher="submitit", resources=resources), Path(folder), 1, 1)
body = lambda _: run_in(pool, [Job("one", ["slow to stop"])], Path(folder), 1)["one"]
sys.exit(execute("sweep", body, []))
"""


def test_ctrl_c_leaves_no_run_of_submitits_local_executor(folder):
    """A terminal's Ctrl-C goes to submitit's processes too; the run has the time that it needs."""
    pytest.importorskip("submitit")
    words = [sys.executable, "-c", SWEEP, str(folder), *HERE]
    sweep = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, process_group=0)
    out = f"out={folder / 'one'}"
    try:
        wait_until((folder / "one.ready").exists)
        os.killpg(sweep.pid, signal.SIGINT)
        _, said = sweep.communicate(timeout=240)
        assert (sweep.returncode, said) == (3, "sweep: interrupted; repeat the command to go on\n")
        assert (folder / "one.saved").exists()
        assert not processes(out)
    finally:
        for pid in [sweep.pid, *processes(out)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_ctrl_c_while_a_run_is_submitted_is_not_lost(folder, monkeypatch):
    """It stops the run, which the sweep must have for that."""
    submitit = pytest.importorskip("submitit")
    submit = submitit.AutoExecutor.submit

    def interrupted(self, *task):
        os.kill(os.getpid(), signal.SIGINT)
        job = submit(self, *task)
        wait_until((folder / "one.ready").exists)
        return job

    monkeypatch.setattr(submitit.AutoExecutor, "submit", interrupted)
    pool = open_pool(SweepConfig(launcher="submitit", resources=HERE), folder, 1, 1)
    with pytest.raises(KeyboardInterrupt):
        run_in(pool, [Job("one", ["slow to stop"])], folder, 1)
    assert (folder / "one.saved").exists()
    assert not processes(f"out={folder / 'one'}")


def test_without_slurm_it_is_said(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"launcher=submitit: no sbatch here; use launcher=local"):
        check_launcher(SweepConfig(launcher="submitit", resources=["timeout_min=5"]))
    check_launcher(SweepConfig(launcher="submitit", resources=HERE))
    for name in ("sbatch", "srun"):
        (tmp_path / name).touch(0o755)
    check_launcher(SweepConfig(launcher="submitit"))


def small_ray():
    """A stand-in with the few names of Ray that are called: tasks run when they are asked for."""
    ray = ModuleType("ray")

    class Task:
        def __init__(self, function):
            self.function, self.asked = function, {}

        def options(self, **asked):
            if unknown := asked.keys() - {"max_retries", "num_cpus", "num_gpus"}:
                raise ValueError(f"Invalid option keyword {unknown} for remote functions.")
            self.asked = asked
            return self

        def remote(self, *arguments):
            return lambda: self.function(*arguments)

    ray.exceptions = ModuleType("ray.exceptions")
    for name in ("RayError", "RayTaskError", "TaskCancelledError"):
        setattr(ray.exceptions, name, type(name, (Exception,), {}))
    ray.init = lambda **_: None
    ray.remote = Task
    ray.wait = lambda references, timeout: (references, [])
    ray.get = lambda reference: reference()
    return ray


def test_ray_by_a_stand_in(folder, monkeypatch):
    ray = small_ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    assert outcome(cluster(folder, "ray", resources=["num_cpus=1"]), folder) == (STATUSES, TRIES)
    with pytest.raises(UserError, match="resources: Ray does not take them"):
        cluster(folder, "ray", resources=["gpu=1"])


def test_workers_and_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert workers_and_threads(SweepConfig(), "cpu", 6) == (6, 1)
    assert workers_and_threads(SweepConfig(), "cuda:0", 6) == (1, 8)
    assert workers_and_threads(SweepConfig(workers=2), "cpu", 6) == (2, 4)
    there = SweepConfig(launcher="submitit", resources=["cpus_per_task=4", "timeout_min=60"])
    assert workers_and_threads(there, "cuda", 6) == (6, 4)
    assert there.requested() == {"cpus_per_task": 4, "timeout_min": 60}


@pytest.mark.parametrize(("mine", "theirs"), [("5", "5"), (None, "3")])
def test_the_callers_threads_win(mine, theirs, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if mine is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", mine)
    (tmp_path / "logs").mkdir()
    asked = []

    class Done:
        def poll(self):
            return 0

    def start(command):
        asked.append(command.threads)
        return Done()

    assert run_in(Pool(1, 3, start=start), [Job("one", [])], tmp_path, 1) == {"one": 0}
    assert asked == [theirs]


def test_mistakes(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"launcher=submitit: submitit is not installed; pip"):
        check_launcher(SimpleNamespace(launcher="submitit"))
    with pytest.raises(UserError, match=r"resources=\[gpu\]: gpu is not key=value"):
        SweepConfig(launcher="ray", resources=["gpu"])
    with pytest.raises(UserError, match=r"resources=\[num_gpus=1\]: processes of this machine"):
        SweepConfig(resources=["num_gpus=1"])
    with pytest.raises(UserError, match=r"retries=-1: must be at least 0"):
        SweepConfig(retries=-1)
