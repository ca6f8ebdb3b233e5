"""Pretraining in one process while the others of a launcher wait.

The base is the same for any number of processes, so a process of its own pretrains it."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from weft_rl.config.overrides import options_of
from weft_rl.errors import Interrupted, UserError
from weft_rl.runs.folder import write_text
from weft_rl.stages.context import StageContext

_POLL_S = 0.5  # short compared with pretraining
# Variables of a launcher, which the child process must not inherit.
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
_LAUNCHER += ("ACCELERATE_USE_", "FSDP_", "PMI_", "OMPI_")
# The child's run directory is removed, so it needs no report.
_WITHOUT_REPORT = """
import sys
from functools import partial
from weft_rl.cli import execute
from weft_rl.pipeline import main
sys.exit(execute("weft_rl.pipeline", partial(main, report=False), sys.argv[1:]))
"""
_PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h


def pretrain_in_child(context: StageContext) -> None:
    """Run stage base with the same options in a child process, which fills the cache.

    Raises Interrupted if it is stopped or fails, and UserError if it ends with status 2."""
    folder, heartbeat = context.run / ".base", _heartbeat(context)
    options = options_of(asdict(context.config))
    command = [sys.executable, "-c", _WITHOUT_REPORT]
    command += [word for word in options if not word.startswith("eval.")]
    command += ["stages=[base]", "eval.after_each=false", f"out={folder}"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER)}
    # a process group of its own: a signal to ours is passed on once
    child = subprocess.Popen(command, env=env, process_group=0, preexec_fn=_die_with_parent)
    beat = 0
    try:
        while child.poll() is None:
            write_text(heartbeat, f"{os.getpid()} {beat}")
            beat += 1
            time.sleep(_POLL_S)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        if child.returncode:
            write_text(heartbeat, f"failed {os.getpid()} {time.time_ns()}")
    if child.returncode == 2:
        raise UserError(f"model={context.config.model}: its base cannot be pretrained; see above")
    if child.returncode:
        raise Interrupted(f"pretraining the base ended with status {child.returncode}")
    shutil.rmtree(folder)
    heartbeat.unlink(missing_ok=True)


def wait_for_base(context: StageContext, exists: Callable[[], bool]) -> None:
    """Wait until the first process has put the base into the run directory.

    Raises Interrupted if that failed, if the launcher has ended, or if the first process gives no
    sign of life for reliability.stall_timeout seconds."""
    parent, limit = os.getppid(), context.config.reliability.stall_timeout
    last, since = _read(context), time.monotonic()
    while not exists():
        message = _read(context)
        if message != last:
            last, since = message, time.monotonic()
            if message.startswith("failed"):
                raise Interrupted("stage base: failed in the first process")
        if os.getppid() != parent:
            raise Interrupted("the launcher has ended")
        if time.monotonic() - since > limit:
            raise Interrupted(f"stage base: no sign of the first process for {limit:.0f} s")
        time.sleep(_POLL_S)


def _heartbeat(context: StageContext) -> Path:
    """The file that the first process writes while the base is pretrained."""
    return context.run / ".base-sign"


def _read(context: StageContext) -> str:
    try:
        return _heartbeat(context).read_text(encoding="utf-8")
    except OSError:
        return ""


def _die_with_parent() -> None:
    """In the child: SIGTERM when the parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
