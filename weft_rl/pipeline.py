"""`python -m weft_rl.pipeline`: the stages of a run, in order, on one run folder."""

import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import weft_rl
from weft_rl.cli import execute
from weft_rl.config.load import diff_configs, load_run_config, to_yaml
from weft_rl.config.options import require
from weft_rl.config.schema import GENERATED, RunConfig
from weft_rl.data.choice import Rejects, read_traces
from weft_rl.data.records import load_records
from weft_rl.data.tasks import GENERATORS, hub_name, load_task
from weft_rl.errors import Interrupted, UserError
from weft_rl.families.folder import check_weights
from weft_rl.families.registry import PUBLISHED
from weft_rl.plan import network_of
from weft_rl.plot import plot_run
from weft_rl.report import write_report
from weft_rl.runs import (
    CONFIG,
    CURVES,
    EVAL,
    FINISHED,
    finished_stages,
    one_writer,
    read_json,
    set_aside,
    write_json,
    write_text,
)
from weft_rl.shares import rank_and_world
from weft_rl.sums import damage
from weft_rl.trackers import check_trackers, point_trackers

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")


def main(argv: Sequence[str]) -> int:
    """Run the pipeline from its command-line arguments; returns the exit status."""
    config = load_run_config(argv, command="weft_rl.pipeline")
    check_trackers(config.trackers)
    start_model(config)
    check_data(config)
    check_processes(config)
    check_four_bits(config)
    check_training(config)
    # one process opens the folder and reports; all of them train and evaluate
    run = open_run(config) if first_process() else Path(str(config.out))
    with one_writer(run) if first_process() else nullcontext():
        evaluated = run_pipeline(config, run, argv)
        if not first_process():
            return 0
        plot_run(run, run / CURVES)
        report = write_report(run)
    if evaluated:
        show_scores(evaluated, config.task)
    Console().print(f"report: {report}", soft_wrap=True, highlight=False)
    return 0


def environment() -> str:
    """Versions and revision as YAML, for config.yaml."""
    root = Path(__file__).parents[1]
    revision = ""
    if (root / ".git").exists():
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    lines = [
        "versions:",
        f"  weft_rl: {weft_rl.__version__}",
        f"  python: {platform.python_version()}",
    ]
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
            check_lineage(config, run)
        # a hidden file is another process's of this run, about to write the configuration
        elif any(not path.name.startswith(".") for path in run.iterdir()):
            raise UserError(f"out={run}: is not empty and holds no run; choose another out")
        write_text(known, to_yaml(config) + environment())
    except OSError as error:
        raise UserError(
            f"out={run}: cannot be written ({error.strerror}); choose another out"
        ) from error
    return run


def check_lineage(config: RunConfig, run: Path) -> None:
    """Raise UserError unless the stages go on from those that the folder holds, or are its first.

    Each stage starts from the one before it."""
    done = [stage for stage in finished_stages(run) if stage != "base"]
    if any(one != other for one, other in zip(done, config.trained, strict=False)):
        raise UserError(
            f"out={run}: holds {' and then '.join(done)}, which stages=[{','.join(config.stages)}] "
            f"does not go on from; begin with stages=[{','.join(done)}], which is not run again, "
            "or choose another out"
        )


def start_model(config: RunConfig) -> str | None:
    """The folder or hub id that `model=` names; None for one that is pretrained here.

    Raises UserError for a folder that is not there or not whole: before anything is written."""
    if config.model in GENERATED:
        return None
    place = PUBLISHED.get(config.model, config.model)
    folder = Path(place)
    if folder.is_dir():
        if not (folder / "adapter_config.json").exists():
            check_weights(folder)
    elif place.startswith((".", "/", "~")) or place.count("/") != 1:
        raise UserError(f"model={config.model}: no such folder, and no hub id (owner/name) either")
    return place


def check_data(config: RunConfig) -> None:
    """Read every data file that the run will need. Raises UserError naming file and line.

    A data set of the hub is left to the stage that needs it."""
    load_task(config.task)
    if "rl" in config.stages and config.rl.rollout.data is None and config.task not in GENERATORS:
        raise UserError(
            f"rl.rollout.data=null: task={config.task} has no generated records; name a file"
        )
    if config.data not in GENERATED and any(
        stage not in ("base", "rl", "eval") for stage in config.stages
    ):
        options = config.cold_start.data
        read_traces(config.data, options, Rejects(options.bad_records))
    for data in (config.rl.rollout.data, config.eval.data):
        if data not in (None, "d1") and hub_name(config.task, data) is None:
            load_records(config.task, data)


def check_processes(config: RunConfig) -> None:
    """Raise UserError for a run that several processes cannot share."""
    if rank_and_world()[1] == 1:
        return
    rule = "several processes need one folder; name it"
    require(config.out is not None, "out", config.out, rule)
    rule = "its base is pretrained by one process; run that first, then name a checkpoint's folder"
    require(config.model not in GENERATED, "model", config.model, rule)


def check_four_bits(config: RunConfig) -> None:
    """Raise UserError for a stage that would start from an adapter on 4-bit weights."""
    names = config.trained
    if config.memory.weights == "nf4" and len(names) > 1:
        raise UserError(
            f"memory.weights=nf4: {names[1]} cannot start from an adapter on 4-bit weights; run "
            f"stages=[{names[0]}], merge with weft-rl convert RUN/checkpoints/{names[0]}/step-N "
            f"out=MERGED to=upstream, and go on with model=MERGED stages=[{','.join(names[1:])}]"
        )


def check_training(config: RunConfig) -> None:
    """Raise UserError for a device that is not there, and for adapters of modules that are not.

    Before a stage has taken its hours. An adapter's folder is left to the stage that loads it."""
    if config.device != "auto":
        from weft_rl.models.loading import resolve_device  # a help text does not wait for torch

        resolve_device(config.device)
    known = config.model in GENERATED or config.model in PUBLISHED
    if known or (Path(config.model) / "config.json").exists():
        for stage in config.trained:
            block = config.rl if stage == "rl" else config.cold_start
            network_of(config, block.lora, half=False)


def first_process() -> bool:
    """Whether this process writes; the rank is torchrun's and accelerate's."""
    return rank_and_world()[0] == 0


def run_pipeline(config: RunConfig, run: Path, argv: Sequence[str]) -> dict[str, Any]:
    """Run what is not done yet, evaluating after each stage; returns the content of eval.json.

    argv: the arguments that the configuration is made of. Raises Interrupted, with the way to go
    on, when a signal stops it."""
    point_trackers(config.trackers, run)
    # imported here: a help text or a wrong option must not wait for torch
    from stages.context import Context, leave_together, quiet_libraries
    from stages.evaluate import run as evaluate
    from stages.registry import BODIES

    quiet_libraries()
    finished = finished_stages(run)
    evaluated: dict[str, Any] = read_json(run / EVAL, {})
    place = start_model(config)
    names = [name for name in config.stages if name != "base"]
    if place is None:
        names.insert(0, "base")
    current, start = "base", place or ""
    drop_damaged(config, run, names, finished, evaluated)
    try:
        for stage in names:
            if stage != "eval":
                if stage not in finished:
                    path = BODIES[stage](Context(config, run, stage, start))
                    finished[stage] = str(path.relative_to(run))
                    # in their order, also where one was trained again for a damaged one
                    finished = {name: finished[name] for name in names if name in finished}
                    if first_process():
                        write_json(run / FINISHED, finished)
                current, start = stage, str(run / finished[stage])
            wanted = stage == "eval" or config.eval.after_each
            if wanted and config.task not in evaluated.get(current, {}):
                evaluated = evaluate(Context(config, run, current, start))
    except (Interrupted, KeyboardInterrupt) as stop:
        again = shlex.join([*argv, *([] if config.out else [f"out={run}"])])
        raise Interrupted(
            f"{stop or f'stopped in stage {current}'}; go on with: "
            f"python -m weft_rl.pipeline {again}"
        ) from stop
    leave_together()
    return evaluated


def drop_damaged(
    config: RunConfig,
    run: Path,
    names: Sequence[str],
    finished: dict[str, str],
    evaluated: dict[str, Any],
) -> None:
    """Take finished stages for unfinished whose checkpoint is still needed and is damaged.

    They are trained again from the one before, to the same end."""
    trained = [name for name in names if name != "eval"]
    scored = config.eval.after_each or "eval" in names
    for stage, after in reversed([*zip(trained, [*trained, None][1:], strict=True)]):
        needed = (after is not None and after not in finished) or (
            scored and config.task not in evaluated.get(stage, {})
        )
        if stage in finished and needed:
            path = run / finished[stage]
            wrong = damage(path)
            if wrong is not None:
                del finished[stage]
                if first_process():
                    sys.stderr.write(f"weft_rl.pipeline: {set_aside(path, wrong)}\n")


def show_scores(evaluated: dict[str, Any], task: str) -> None:
    """Print a small table of scores per stage, and what policies without a model score."""
    title = f"{task}, held out, percent [95 % interval]"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)  # fits the 80 columns of a log
    table.add_column("stage")
    rows = [(stage, entry[task]) for stage, entry in evaluated.items() if task in entry]
    names = [
        name for name, value in rows[-1][1].items() if isinstance(value, dict) and "ci95" in value
    ]
    for column in ("score", *names):
        table.add_column(column, justify="right")
    baselines = rows[-1][1].get("baselines", {})
    for i, (stage, entry) in enumerate([*rows, *baselines.items()]):
        cells = [entry, *(entry[name] for name in names)]
        shown = [
            f"{cell['score']:.1f} [{cell['ci95'][0]:.1f}, {cell['ci95'][1]:.1f}]" for cell in cells
        ]
        table.add_row(stage, *shown, style="dim" if i >= len(rows) else "")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(execute("weft_rl.pipeline", main, sys.argv[1:]))
