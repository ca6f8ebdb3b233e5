"""Python programs in one or more processes."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def launch(*words, processes=2):
    """Exit status and standard error of python, by torchrun if there are several processes."""
    command = [sys.executable]
    if processes > 1:
        # any port that is free: another worker may run this file's tests as well
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )
    try:
        _, complaints = process.communicate(timeout=600)
    finally:
        process.terminate()  # the launcher ends the processes that it started
        process.wait()
    return process.returncode, complaints
