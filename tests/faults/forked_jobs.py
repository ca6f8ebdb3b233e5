"""The runs of a comparison as forks: what `subprocess.Popen` does, without importing torch anew."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from weft_rl.cli import execute
from weft_rl.pipeline.run import main
from weft_rl.sweeps import jobs


class ForkedJob:
    """As much of a Popen as `weft_rl.sweeps.jobs` uses, for `python -m weft_rl.pipeline WORDS`."""

    def __init__(self, command: Sequence[str], *, stdout: Any, env: Mapping[str, str], **_: Any):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setpgid(0, 0)
            for stream in (1, 2):
                os.dup2(stdout.fileno(), stream)
            os.environ.update(env)
            sys.argv = [str(command[2]), *command[3:]]
            status = execute("weft_rl.pipeline", main, command[3:])
        except BaseException:  # noqa: BLE001 - whatever it is, a fork must not go on as its parent
            sys.excepthook(*sys.exc_info())
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self) -> None:
        """SIGTERM."""
        os.kill(self.pid, 15)

    def wait(self) -> int:
        """The exit status, once it has ended."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def fork_jobs() -> None:
    """Let `weft_rl.sweeps.jobs` start its runs so, in this process."""
    jobs.subprocess = type("forking", (), {"Popen": ForkedJob, "DEVNULL": None, "STDOUT": None})
