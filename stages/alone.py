"""A base that the first of several processes has pretrained while the others wait.

Pretraining is one process's work: any number of processes gets the same base."""

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
from weft_rl.runs.atomic_io import write_text
from weft_rl.stages.context import StageContext

_POLL_S = 0.5  # short against a pretraining
# What a launcher tells its processes, and a process of its own must not hear.
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
_LAUNCHED += ("ACCELERATE_USE_", "FSDP_", "PMI_", "OMPI_")
# Its folder is removed again.
_WITHOUT_REPORT = """
import sys
from functools import partial
from weft_rl.cli import execute
from weft_rl.pipeline.run import main
sys.exit(execute("weft_rl.pipeline", partial(main, report=False), sys.argv[1:]))
"""
_PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h


def pretrain(context: StageContext) -> None:
    """Run stage base of the same options in a process of its own, which fills the cache.

    Raises Interrupted where it is stopped or fails, and UserError for a mistake that it names."""
    folder, sign = context.run / ".base", _sign(context)
    options = options_of(asdict(context.config))
    words = [sys.executable, "-c", _WITHOUT_REPORT]
    words += [word for word in options if not word.startswith("eval.")]
    words += ["stages=[base]", "eval.after_each=false", f"out={folder}"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHED)}
    # a group of its own: a signal to this one is passed on, once
    child = subprocess.Popen(words, env=env, process_group=0, preexec_fn=_end_with_parent)
    beat = 0
    try:
        while child.poll() is None:
            write_text(sign, f"{os.getpid()} {beat}")
            beat += 1
            time.sleep(_POLL_S)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        if child.returncode:
            write_text(sign, f"failed {os.getpid()} {time.time_ns()}")
    if child.returncode == 2:
        raise UserError(f"model={context.config.model}: its base cannot be pretrained; see above")
    if child.returncode:
        raise Interrupted(f"pretraining the base ended with status {child.returncode}")
    shutil.rmtree(folder)
    sign.unlink(missing_ok=True)


def wait_for(context: StageContext, made: Callable[[], bool]) -> None:
    """Wait until the first process has put the base into the run directory.

    Raises Interrupted when that failed, when what started the processes has ended, and when the
    first process gives no sign for reliability.stall_timeout seconds."""
    parent, limit = os.getppid(), context.config.reliability.stall_timeout
    heard, since = _heard(context), time.monotonic()
    while not made():
        now = _heard(context)
        if now != heard:
            heard, since = now, time.monotonic()
            if now.startswith("failed"):
                raise Interrupted("stage base: failed in the first process")
        if os.getppid() != parent:
            raise Interrupted("what started the processes has ended")
        if time.monotonic() - since > limit:
            raise Interrupted(f"stage base: no sign of the first process for {limit:.0f} s")
        time.sleep(_POLL_S)


def _sign(context: StageContext) -> Path:
    """What the first process writes while it has the base pretrained."""
    return context.run / ".base-sign"


def _heard(context: StageContext) -> str:
    try:
        return _sign(context).read_text(encoding="utf-8")
    except OSError:
        return ""


def _end_with_parent() -> None:
    """In the child: SIGTERM when the process that started it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
