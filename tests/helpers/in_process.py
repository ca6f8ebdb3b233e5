"""A launcher that runs the pipeline in the test's process, which has imported torch already."""

from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

from weft_rl.cli import execute
from weft_rl.pipeline.run import main


def connect(folder, resources):
    """Stands in for weft_rl.sweeps.launchers.local.connect."""
    return start


def start(command):
    _, _, _, *arguments = command.arguments  # python -m weft_rl.pipeline ...
    with command.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
        status = execute("weft_rl.pipeline", main, arguments)
    return SimpleNamespace(poll=lambda: status)
