"""Sweep runs in the test process, which has already imported torch."""

from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

from weft_rl.cli import execute
from weft_rl.pipeline import run as pipeline
from weft_rl.runs.folder import REPORT
from weft_rl.sweeps import launchers


def run_in_process(monkeypatch):
    monkeypatch.setattr(launchers, "start_local", _start)
    monkeypatch.setattr(pipeline, "plot_run", lambda run, out: None)
    monkeypatch.setattr(pipeline, "write_report", _empty_report)


def _empty_report(run):
    (run / REPORT).touch()
    return run / REPORT


def _start(command):
    _, _, _, *arguments = command.arguments  # python -m weft_rl.pipeline ...
    with command.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
        status = execute("weft_rl.pipeline", pipeline.main, arguments)
    return SimpleNamespace(poll=lambda: status)
