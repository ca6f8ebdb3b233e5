"""The runs of a sweep: some at a time, each a process with a log, failures tried again."""

import os
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from weft_rl.cli import require_extra
from weft_rl.io.terminal import Console
from weft_rl.sweeps.config import SweepConfig
from weft_rl.sweeps.launchers import local, ray_cluster
from weft_rl.sweeps.launchers import submitit as slurm
from weft_rl.sweeps.launchers.base import Command, Running, Start

LOGS = "logs"
_LAUNCHERS = {"local": local.connect, "submitit": slurm.connect, "ray": ray_cluster.connect}
_POLL_S = 0.2  # short against a run, long against the work of asking
_TAIL = 4096  # bytes of a log that hold its last line


@dataclass(frozen=True)
class Job:
    """A run: its name, which is its folder's, and the arguments of `weft_rl.pipeline`."""

    name: str
    arguments: Sequence[str]


@dataclass(frozen=True)
class Pool:
    """What runs jobs: how it starts one, how many at a time, and how often it tries again.

    start: a launcher's; null: processes of this machine."""

    workers: int
    threads: int  # of each run
    retries: int = 0
    start: Start | None = None


def check_launcher(options: SweepConfig) -> None:
    """Raise UserError for a launcher whose package is not installed, or whose cluster not here."""
    if options.launcher != "local":
        require_extra(options.launcher, f"launcher={options.launcher}")
    if options.launcher == "submitit":
        slurm.check_cluster(options.requested())


def workers_and_threads(options: SweepConfig, device: str, jobs: int) -> tuple[int, int]:
    """How many of the jobs to run at a time, and the threads of each where the caller's
    OMP_NUM_THREADS says none: the runs at a time share the cores.

    device: the runs', as `device=` has it. On a cluster all are handed over, each with the threads
    that its resources name."""
    cores = len(os.sched_getaffinity(0))
    if options.launcher != "local":
        asked = options.requested()
        threads = asked.get("cpus_per_task", asked.get("num_cpus", 1))
        return options.workers or jobs, max(1, int(threads))
    on_gpu = device.startswith("cuda") or (device == "auto" and has_cuda())
    workers = min(options.workers or (1 if on_gpu else cores), jobs)
    return workers, max(1, cores // workers)


def open_pool(options: SweepConfig, folder: Path, workers: int, threads: int) -> Pool:
    """The pool of a sweep in `folder`. Raises UserError for resources that its launcher lacks."""
    start = _LAUNCHERS[options.launcher]((folder / LOGS).resolve(), options.requested())
    return Pool(workers, threads, options.retries, start)


def run_in(pool: Pool, jobs: Sequence[Job], folder: Path, total: int) -> dict[str, int]:
    """Run the jobs in `folder`; their last exit statuses by name, below 0 where one was killed.

    total counts jobs done earlier too. One that fails does not stop the others; it is tried again,
    after them, if that can help. Whatever stops this function stops the running ones first, so that
    they leave a checkpoint. Raises UserError when another process has one of the jobs in hand."""
    waiting = deque(jobs)
    running: dict[str, tuple[Job, Running, float]] = {}
    statuses: dict[str, int] = {}
    tried: Counter[str] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
    console = Console()
    columns = (*columns, TimeElapsedColumn())
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        bar = progress.add_task("", total=total, completed=total - len(jobs))
        try:
            while waiting or running:
                while waiting and len(running) < pool.workers:
                    job = waiting.popleft()
                    running[job.name] = (job, _start(pool, job, folder), time.monotonic())
                    progress.update(bar, description=f"running {', '.join(running)}")
                for name, (job, process, begun) in [*running.items()]:
                    status = process.poll()
                    if status is None:
                        continue
                    del running[name]
                    statuses[name] = status
                    tried[name] += 1
                    again = can_help(status) and tried[name] <= pool.retries
                    said = f"{name}: {_how(status)} after {time.monotonic() - begun:.0f} s"
                    said += f", is tried again ({tried[name]} of {pool.retries})" if again else ""
                    progress.console.print(said, soft_wrap=True)
                    if again:
                        waiting.append(job)
                    else:
                        progress.advance(bar)
                time.sleep(_POLL_S)
        finally:
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.wait()
    return statuses


def can_help(status: int) -> bool:
    """Whether trying again can change a status: killed, interrupted or broken; not a mistake."""
    return status < 0 or status in (1, 3)


def _how(status: int) -> str:
    if status == 0:
        return "done"
    return f"stopped, status {status}," if status > 0 else f"killed by signal {-status}"


def _start(pool: Pool, job: Job, folder: Path) -> Running:
    words = [sys.executable, "-m", "weft_rl.pipeline", *job.arguments, f"out={folder / job.name}"]
    log = (folder / LOGS / f"{job.name}.log").resolve()
    start = pool.start or local.connect(log.parent, {})
    # the caller's number, if there is one: a cluster's worker may have another of its own
    threads = os.environ.get("OMP_NUM_THREADS") or str(pool.threads)
    return start(Command(words, Path.cwd(), log, threads))


def failure(folder: Path, name: str, status: int) -> str:
    """One line on a run that failed: how, what it said last, and where all it said is."""
    log = folder / LOGS / f"{name}.log"
    how = f"failed with status {status}" if status > 0 else f"killed by signal {-status}"
    return f"{name}: {how}: {last_line(log)} (see {log})"


def last_line(log: Path) -> str:
    """The last line of a log that says something; empty when there is none."""
    text = log.read_bytes()[-_TAIL:].decode("utf-8", "replace") if log.exists() else ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def has_cuda() -> bool:
    """Whether runs would find a GPU; asked in a process of its own, so that torch stays there."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
