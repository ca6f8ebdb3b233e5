"""Parallel jobs of a sweep, each a process with a log file and retries."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from weft_rl.cli import require_extra
from weft_rl.errors import Interrupted, UserError
from weft_rl.io.terminal import Console
from weft_rl.sweeps.config import SweepConfig
from weft_rl.sweeps.launchers import Command, Running, Start, connect, start_local

LOGS = "logs"
_POLL_S = 0.2  # short compared with a run, long compared with the cost of a poll


@dataclass(frozen=True)
class Job:
    """A run: its name, also the directory name, and its `weft_rl.pipeline` arguments."""

    name: str
    arguments: Sequence[str]


@dataclass(frozen=True)
class Pool:
    """Execution of jobs: number of workers, threads and retries per job, start function."""

    workers: int
    threads: int
    retries: int = 0
    start: Start = start_local


def check_launcher(options: SweepConfig) -> None:
    """Raise UserError if the launcher's package or cluster is missing."""
    if options.launcher != "local":
        require_extra(options.launcher, f"launcher={options.launcher}")
    for name in ("sbatch", "srun") if options.launcher == "submitit" else ():
        # without Slurm, submitit would start all runs locally at once
        if shutil.which(name) is None:
            raise UserError(
                f"launcher=submitit: {name} is not installed here; use launcher=local, or submit "
                "from a Slurm machine"
            )


def workers_and_threads(options: SweepConfig, device: str, jobs: int) -> tuple[int, int]:
    """Return the number of parallel jobs and the threads per job.

    Local jobs share the cores. On a cluster all jobs are submitted at once, with the threads that
    their resources request. device: `device=` of the runs. OMP_NUM_THREADS takes precedence."""
    if options.launcher != "local":
        requested = options.requested()
        threads = requested.get("cpus_per_task", requested.get("num_cpus", 1))
        return options.workers or jobs, max(1, int(threads))
    cores = len(os.sched_getaffinity(0))
    on_gpu = device.startswith("cuda") or (device == "auto" and _has_cuda())
    workers = min(options.workers or (1 if on_gpu else cores), jobs)
    return workers, max(1, cores // workers)


def _has_cuda() -> bool:
    """Check for a GPU in a subprocess, which avoids importing torch here."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def open_pool(options: SweepConfig, folder: Path, device: str, jobs: int) -> Pool:
    """Return the pool of a sweep in `folder`. Raises UserError for unsupported resources."""
    start = connect(options.launcher, (folder / LOGS).resolve(), options.requested())
    return Pool(*workers_and_threads(options, device, jobs), options.retries, start)


def run_in(pool: Pool, jobs: Sequence[Job], folder: Path, total: int) -> dict[str, int]:
    """Run the jobs in `folder` and return their exit statuses by name, below 0 if killed.

    total: number of jobs including finished ones. A failed job does not stop the others and is
    retried after them if a retry can help. On an exception, running jobs save a checkpoint and
    stop. Raises UserError if another process is running one of the jobs."""
    queue = deque(jobs)
    running: dict[str, tuple[Job, Running, float]] = {}
    statuses: dict[str, int] = {}
    tries: Counter[str] = Counter()
    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn()
    options: dict[str, Any] = {"transient": True, "disable": not console.is_terminal}
    with Progress(*columns, TimeElapsedColumn(), console=console, **options) as progress:
        bar = progress.add_task("", total=total, completed=total - len(jobs))
        try:
            while queue or running:
                while queue and len(running) < pool.workers:
                    job = queue.popleft()
                    running[job.name] = (job, _start(pool, job, folder), time.monotonic())
                    progress.update(bar, description=f"running {', '.join(running)}")
                for name, (job, process, started) in [*running.items()]:
                    status = process.poll()
                    if status is None:
                        continue
                    del running[name]
                    statuses[name] = status
                    tries[name] += 1
                    # a user error would repeat itself
                    retry = status not in (0, 2) and tries[name] <= pool.retries
                    message = f"{name}: {_outcome(status)} after {time.monotonic() - started:.0f} s"
                    message += f"; retry {tries[name]} of {pool.retries}" if retry else ""
                    progress.console.print(message, soft_wrap=True)
                    queue.extend([job] if retry else [])
                    progress.advance(bar, not retry)
                time.sleep(_POLL_S)
        finally:
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.wait()
    return statuses


def _outcome(status: int) -> str:
    if status == 0:
        return "done"
    return f"failed with status {status}" if status > 0 else f"killed by signal {-status}"


def _start(pool: Pool, job: Job, folder: Path) -> Running:
    log = (folder / LOGS / f"{job.name}.log").resolve()
    # set here, because a cluster worker may have another OMP_NUM_THREADS
    threads = os.environ.get("OMP_NUM_THREADS") or str(pool.threads)
    pipeline = [sys.executable, "-m", "weft_rl.pipeline", *job.arguments]
    command = Command([*pipeline, f"out={folder / job.name}"], Path.cwd(), log, threads)
    return pool.start(command)


def train_initial(pool: Pool, folder: Path, arguments: Sequence[str], stage: str) -> dict[str, int]:
    """Fill the cache of stage `base` or `a2d`, once for all runs. Raises UserError if it exits
    with 2."""
    job = Job(stage, [*arguments, f"stages=[{stage}]", "eval.after_each=false"])
    statuses = run_in(pool, [job], folder, 1)
    if statuses[job.name] == 2:
        message = last_line(folder / LOGS / f"{job.name}.log")
        raise UserError(message.removeprefix("weft_rl.pipeline: "))
    return statuses


def exit_status(command: str, folder: Path, statuses: Mapping[str, int], resume: str) -> int:
    """Print one line per failed run and return the exit status of the sweep.

    resume: instruction to the user. Raises Interrupted if all failed runs can be resumed."""
    failed = {name: status for name, status in statuses.items() if status}
    for name, status in failed.items():
        log = folder / LOGS / f"{name}.log"
        sys.stderr.write(f"{command}: {name}: {_outcome(status)}: {last_line(log)} (see {log})\n")
    if failed and set(failed.values()) == {3}:
        raise Interrupted(f"{', '.join(failed)} interrupted; {resume}")
    return 1 if failed else 0


def last_line(log: Path) -> str:
    """Return the last nonblank line of a log, or an empty string."""
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
