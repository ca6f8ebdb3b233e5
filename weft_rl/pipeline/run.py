"""`python -m weft_rl.pipeline`: the stages of a run, in order, on one run folder."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from weft_rl.config.load import load_run_config
from weft_rl.config.overrides import resume_command
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.errors import Interrupted
from weft_rl.evaluation.results_store import rank_and_world
from weft_rl.evaluation.settings import is_evaluated
from weft_rl.io.terminal import Console
from weft_rl.pipeline.memory_warnings import running_out, shortages
from weft_rl.pipeline.preflight import check_processes, check_run, start_model
from weft_rl.pipeline.resume import open_run, take_up, wait_until_opened
from weft_rl.plot.curves import plot_run
from weft_rl.report.run_page import write_report
from weft_rl.runs.checksums import find_corruption
from weft_rl.runs.folder import (
    CURVES,
    FINISHED,
    REPORT,
    START,
    finished_stages,
    quarantine,
    read_results,
    run_lock,
    write_json,
)
from weft_rl.trainers.infra.trackers import point_trackers


def main(argv: Sequence[str], *, report: bool = True) -> int:
    """Run the pipeline from its command-line arguments; returns the exit status.

    report: draw the curves, write the report and print its path and the scores."""
    config = load_run_config(argv, command="weft_rl.pipeline", tell=first_process())
    check_run(config)
    check_processes(config)
    check_stages(config)
    # one process opens the folder and reports; all of them train and evaluate
    run = open_run(config) if first_process() else wait_until_opened(config)
    with run_lock(run) if first_process() else nullcontext():
        if first_process():
            take_up(config, run)
        evaluated = run_pipeline(config, run, argv)
        if not (report and first_process()):
            return 0
        plot_run(run, run / CURVES)
        path = write_report(run)
    if evaluated:
        show_scores(evaluated, config)
    Console().print(f"report: {path}", soft_wrap=True, highlight=False)
    return 0


def first_process() -> bool:
    """Whether this process writes; the rank is torchrun's and accelerate's."""
    return rank_and_world()[0] == 0


def check_stages(config: RunConfig) -> None:
    """Raise UserError for what any stage that is still to run would refuse: each is asked before
    the first one begins, and before anything is written."""
    # imported here: a help text or a wrong option must not wait for torch
    from weft_rl.stages import check

    check(config, finished_stages(Path(config.out)) if config.out else {})


def run_pipeline(config: RunConfig, run: Path, argv: Sequence[str]) -> dict[str, Any]:
    """Run what is not done yet, evaluating after each stage; returns the content of eval.json.

    argv: the arguments that the configuration is made of. Raises Interrupted, with the way to go
    on, when a signal stops it, and OutOfMemory."""
    point_trackers(config.trackers, run)
    # imported here: a help text or a wrong option must not wait for torch
    from weft_rl.stages import STAGE_RUNNERS
    from weft_rl.stages.context import StageContext, leave_together, quiet_libraries
    from weft_rl.stages.evaluate import run as evaluate

    quiet_libraries()
    finished = finished_stages(run)
    evaluated: dict[str, Any] = read_results(run)
    place = start_model(config)
    names = config.in_order
    current, start = "base", place or ""
    drop_damaged(config, run, names, finished, evaluated)
    again = resume_command(argv, None if config.out else run)
    if first_process():
        for line in shortages(config, [name for name in config.trained if name not in finished]):
            sys.stderr.write(f"weft_rl.pipeline: {line}\n")
    try:
        for stage in names:
            if stage != "eval":
                if stage not in finished:
                    with running_out(config, stage, again):
                        path = STAGE_RUNNERS[stage].run(StageContext(config, run, stage, start))
                    finished[stage] = str(path.relative_to(run))
                    # in their order, also where one was trained again for a damaged one
                    finished = {name: finished[name] for name in names if name in finished}
                    if first_process():
                        write_json(run / FINISHED, finished)
                current, start = stage, str(run / finished[stage])
            wanted = stage == "eval" or config.eval.after_each
            if wanted and not is_evaluated(config, evaluated, current):
                if first_process():
                    # it would speak of another evaluation
                    (run / REPORT).unlink(missing_ok=True)
                with running_out(config, "eval", again):
                    evaluated = evaluate(StageContext(config, run, current, start))
    except (Interrupted, KeyboardInterrupt) as stop:
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
            scored and not is_evaluated(config, evaluated, stage)
        )
        if stage in finished and needed:
            path = run / finished[stage]
            wrong = find_corruption(path)
            if wrong is not None:
                del finished[stage]
                if first_process():
                    sys.stderr.write(f"weft_rl.pipeline: {quarantine(path, wrong)}\n")


def show_scores(evaluated: dict[str, Any], config: RunConfig) -> None:
    """Print a small table of scores per stage, and what policies without a model score."""
    task = config.task
    title = f"{task}, held out, percent [95 % interval]"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)  # fits the 80 columns of a log
    table.add_column("stage")
    first = "base" if config.model in TOY_MODELS else START
    rows = [
        (first if stage == "base" else stage, entry[task])
        for stage, entry in evaluated.items()
        if task in entry
    ]
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
