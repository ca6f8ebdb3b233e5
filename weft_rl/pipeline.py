"""`python -m weft_rl.pipeline`: the stages of a run, in order, on one run folder."""

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

import weft_rl
from weft_rl.cli import execute
from weft_rl.config.load import diff_configs, load_run_config, to_yaml
from weft_rl.config.schema import RunConfig
from weft_rl.errors import Interrupted, UserError
from weft_rl.plot import plot_run
from weft_rl.report import write_report
from weft_rl.runs import CONFIG, CURVES, EVAL, read_json, write_json, write_text

# Stages that are through, with their last checkpoints relative to the run folder.
_FINISHED = "stages.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")


def main(argv: Sequence[str]) -> int:
    """Run the pipeline from its command-line arguments; returns the exit status."""
    config = load_run_config(argv, command="weft_rl.pipeline")
    run_pipeline(config, open_run(config))
    return 0


def environment() -> str:
    """Versions and revision as YAML, for config.yaml."""
    root = Path(__file__).parents[1]
    revision = ""
    if (root / ".git").exists():
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    lines = ["versions:", f"  weft_rl: {weft_rl.__version__}", f"  python: {platform.python_version()}"]
    lines += [f"  {name}: {version(name)}" for name in _PACKAGES]
    return "\n".join([*lines, f"revision: {revision or 'unknown'}", ""])


def open_run(config: RunConfig) -> Path:
    """Create the run folder, or take up one of the same configuration.

    Raises UserError when the folder cannot be written, holds a run of another configuration, or
    holds any run while resume=never."""
    run = Path(config.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{'-'.join(config.stages)}")
    try:
        run.mkdir(parents=True, exist_ok=True)
        known = run / CONFIG
        if known.exists():
            if config.resume == "never":
                raise UserError(f"out={run}: holds a run already; choose another out")
            different = diff_configs(known.read_text(encoding="utf-8"), config)
            if different:
                raise UserError(
                    f"out={run}: holds a run of another configuration (different: "
                    f"{', '.join(different)}); choose another out, or repeat its options"
                )
        elif any(run.iterdir()):
            raise UserError(f"out={run}: is not empty and holds no run; choose another out")
        write_text(known, to_yaml(config) + environment())
    except OSError as error:
        raise UserError(
            f"out={run}: cannot be written ({error.strerror}); choose another out"
        ) from error
    return run


def run_pipeline(config: RunConfig, run: Path) -> None:
    """Run what is not done yet, evaluating after each stage, then draw the curves and the report.

    Raises Interrupted, with the way to go on, when a signal stops it."""
    # imported here: a help text or a wrong option must not wait for torch
    from stages import cold_start, rl
    from stages.context import Context
    from stages.evaluate import run as evaluate
    from stages.base import run as base

    bodies = {"base": base, "rl": rl.run} | dict.fromkeys(cold_start.RATES, cold_start.run)
    console = Console()
    finished: dict[str, str] = read_json(run / _FINISHED, {})
    evaluated: dict[str, object] = read_json(run / EVAL, {})
    current, start = "base", start_model(config)
    names = [name for name in config.stages if name != "base"]
    if start is None or "base" in config.stages:
        names.insert(0, "base")
    try:
        for stage in names:
            if stage != "eval":
                context = Context(config, run, stage, str(start))
                if stage not in finished:
                    path = bodies[stage](context)
                    finished[stage] = str(path.relative_to(run))
                    write_json(run / _FINISHED, finished)
                current, start = stage, str(run / finished[stage])
            if stage == "eval" or (config.eval.after_each and current not in evaluated):
                evaluate(Context(config, run, current, str(start)))
                evaluated = read_json(run / EVAL, {})
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted(f"{stop or 'stopped'}; {resume_hint(run)}") from stop
    plot_run(run, run / CURVES)
    report = write_report(run)
    console.print(scores_table(read_json(run / EVAL, {})))
    console.print(f"report: {report}", soft_wrap=True)
