"""Sweeps: failed runs are retried, signals reach the runs, and each launcher."""

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from waiting import wait_until

import weft_rl
from weft_rl.errors import UserError
from weft_rl.sweeps.config import SweepConfig
from weft_rl.sweeps.jobs import Job, Pool, check_launcher, open_pool, run_in, workers_and_threads
from weft_rl.sweeps.launchers import ClusterTask, Command

# Stands in for `weft_rl.pipeline`: counts its tries, then behaves as its first argument says.
CHILD = """
import os, pathlib, signal, sys, time
behavior, log = sys.argv[1], pathlib.Path(sys.argv[-1].removeprefix("out=") + ".tries")
tries = log.read_text().count("try") + 1 if log.exists() else 1
log.open("a").write("try\\n")
if behavior == "killed first" and tries == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if behavior == "stopped first" and tries == 1:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    log.with_suffix(".ready").touch()
    time.sleep(60)
print("threads", os.environ["OMP_NUM_THREADS"], flush=True)
sys.exit(int(behavior) if behavior.isdigit() else 0)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    package = tmp_path / "path" / "weft_rl"
    package.mkdir(parents=True)
    # everything but the pipeline is the real package: the process of a launcher may need it
    (package / "__init__.py").write_text(f"__path__.append({weft_rl.__path__[0]!r})")
    (package / "pipeline.py").write_text(CHILD)
    monkeypatch.chdir(tmp_path / "path")  # python -m looks there first
    (tmp_path / "sweep" / "logs").mkdir(parents=True)
    return tmp_path / "sweep"


def tries(folder, name):
    return (folder / f"{name}.tries").read_text().count("try")


def send_when(ready, number, *arguments):
    """Signal the processes with these arguments once the file exists."""

    def send():
        wait_until(ready.exists)
        for process in psutil.process_iter(["cmdline"]):
            if {*arguments} <= {*(process.info["cmdline"] or [])}:
                process.send_signal(number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def command(folder, behavior):
    argv = [sys.executable, "-m", "weft_rl.pipeline", behavior, f"out={folder / 'one'}"]
    return Command(argv, folder.parent / "path", folder / "logs" / "one.log", 3)


JOBS = [Job("dies", ["killed first"]), Job("fails", ["1"]), Job("wrong", ["2"]), Job("good", ["0"])]
# a user error is not retried, a failure as often as retries allows
STATUSES = {"dies": 0, "fails": 1, "wrong": 2, "good": 0}
TRIES = {"dies": 2, "fails": 2, "wrong": 1, "good": 1}


def outcome(pool, folder):
    statuses = run_in(pool, JOBS, folder, 4)
    return statuses, {job.name: tries(folder, job.name) for job in JOBS}


@pytest.mark.slow
def test_failed_runs_are_retried(folder, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert outcome(Pool(2, 3, retries=1), folder) == (STATUSES, TRIES)
    assert capsys.readouterr().out.count("retry 1 of 1") == 2
    assert "threads 3" in (folder / "logs" / "dies.log").read_text()


def test_an_interrupted_run_is_resumed(folder):
    out = f"out={folder / 'stops'}"
    thread = send_when(folder / "stops.ready", signal.SIGTERM, "weft_rl.pipeline", out)
    job = Job("stops", ["stopped first"])
    assert run_in(Pool(1, 1, retries=1), [job], folder, 1) == {"stops": 0}
    thread.join()
    assert tries(folder, "stops") == 2


def test_a_cluster_task_passes_sigterm_on(folder):
    before = signal.getsignal(signal.SIGTERM)
    # to this process alone: other test workers have the same arguments
    ready, terminate = (folder / "one.ready").exists, lambda: os.kill(os.getpid(), signal.SIGTERM)
    thread = threading.Thread(target=lambda: (wait_until(ready), terminate()))
    thread.start()
    assert ClusterTask(command(folder, "stopped first"))() == 3
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before


def cluster(folder, launcher, *resources):
    return open_pool(SweepConfig(launcher=launcher, resources=[*resources]), folder, "cpu", 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "given", "wrong"),
    [
        # without Slurm, submitit takes its own local executor
        ("submitit", "timeout_min=5", ["gpu=1", "timeout_min=long"]),
        ("ray", "num_cpus=1", ["gpu=1"]),
    ],
)
def test_cluster_launchers(folder, launcher, given, wrong):
    pytest.importorskip(launcher)
    for resource in wrong:
        with pytest.raises(UserError, match="resources"):
            cluster(folder, launcher, resource)
    assert outcome(cluster(folder, launcher, given), folder) == (STATUSES, TRIES)


@pytest.mark.slow
def test_a_canceled_ray_task_stops_its_run(folder):
    pytest.importorskip("ray")
    run = cluster(folder, "ray", "num_cpus=1").start(command(folder, "stopped first"))
    wait_until((folder / "one.ready").exists)
    run.terminate()
    begin = time.monotonic()
    run.wait()
    assert time.monotonic() - begin < 30  # the run would sleep for a minute


@pytest.mark.slow
def test_submitit_resubmits_before_the_time_limit(folder):
    pytest.importorskip("submitit")
    pool = cluster(folder, "submitit", "timeout_min=5")
    task = ("submitit.core._submit", str(folder / "logs" / "submitit"))
    thread = send_when(folder / "one.ready", signal.SIGUSR2, *task)
    run = pool.start(command(folder, "stopped first"))
    try:
        thread.join()
        wait_until(lambda: run.poll() is not None)
        assert (run.poll(), tries(folder, "one")) == (0, 2)
    finally:
        run.terminate()


def test_submitit_needs_slurm(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="launcher=submitit: sbatch"):
        check_launcher(SweepConfig(launcher="submitit", resources=["timeout_min=5"]))
    for name in ("sbatch", "srun"):
        (tmp_path / name).touch(0o755)
    check_launcher(SweepConfig(launcher="submitit"))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"launcher=submitit: .*pip install"):
        check_launcher(SweepConfig(launcher="submitit"))


def test_workers_and_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert workers_and_threads(SweepConfig(), "cpu", 6) == (6, 1)
    assert workers_and_threads(SweepConfig(), "cuda:0", 6) == (1, 8)
    assert workers_and_threads(SweepConfig(workers=2), "cpu", 6) == (2, 4)
    there = SweepConfig(launcher="submitit", resources=["cpus_per_task=4", "timeout_min=60"])
    assert workers_and_threads(there, "cuda", 6) == (6, 4)
    assert there.requested() == {"cpus_per_task": 4, "timeout_min": 60}


@pytest.mark.parametrize(("given", "expected"), [({"OMP_NUM_THREADS": "5"}, "5"), ({}, "3")])
def test_the_callers_threads_take_precedence(given, expected, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    commands = []

    def start(command):
        commands.append(command)
        return SimpleNamespace(poll=lambda: 0)

    assert run_in(Pool(1, 3, start=start), [Job("one", [])], tmp_path, 1) == {"one": 0}
    assert [command.threads for command in commands] == [expected]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"launcher": "ray", "resources": ["gpu"]}, r"resources=\[gpu\]"),
        ({"resources": ["num_gpus=1"]}, r"resources=\[num_gpus=1\]"),
        *(({"retries": -1}, "retries=-1"), ({"seeds": [1, 1]}, r"seeds=\[1,1\]")),
    ],
)
def test_wrong_options(options, key):
    with pytest.raises(UserError, match=key):
        SweepConfig(**options)
