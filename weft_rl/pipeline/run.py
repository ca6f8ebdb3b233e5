"""`python -m weft_rl.pipeline`: the stages of a run, in one run directory."""

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from weft_rl.cli import full_disk
from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.config.overrides import resume_command
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.distributed import rank_and_world, resolve_device
from weft_rl.errors import Interrupted
from weft_rl.evaluation.settings import is_evaluated
from weft_rl.io.terminal import Console
from weft_rl.pipeline.memory_warnings import advise_on_out_of_memory, memory_warnings
from weft_rl.pipeline.preflight import check_run, model_path
from weft_rl.pipeline.resume import claim_run_dir, require_resumable
from weft_rl.plan.config import PlanConfig
from weft_rl.plot.curves import plot_run
from weft_rl.report.run_report import write_report
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.checksums import find_corruption
from weft_rl.runs.folder import (
    CURVES,
    FINISHED,
    INITIAL,
    REPORT,
    finished_stages,
    quarantine,
    read_results,
)
from weft_rl.trainers.infra.trackers import point_trackers


def main(argv: Sequence[str], *, report: bool = True) -> int:
    """Run the pipeline from command-line arguments and return the exit status.

    report: plot the curves, write the report, and print its path and the scores."""
    is_first, is_dry = rank_and_world()[0] == 0, "--dry-run" in argv
    argv = [word for word in argv if word != "--dry-run"]
    config = load_run_config(argv, command="weft_rl.pipeline", tell=is_first)
    check_run(config)
    check_stages(config)
    if is_dry:
        require_resumable(config)
        if is_first:
            sys.stdout.write(f"{to_yaml(config)}\n")
            show_plan(config)
        return 0
    with claim_run_dir(config) as run:
        results = run_pipeline(config, run, argv)
        if not (report and is_first):
            return 0
        plot_run(run, run / CURVES)
        path = write_report(run)
    show_scores(results, config)
    Console().print(f"report: {path}", soft_wrap=True, highlight=False)
    return 0


def show_plan(config: RunConfig) -> None:
    """Print the data of a run, and memory and time of its stages."""
    from weft_rl.plan.command import print_plan
    from weft_rl.stages import describe

    lines, counts = describe(config)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    if config.in_order != ["eval"]:
        on_cpu = resolve_device(config.device).type == "cpu"
        hardware = "cpu" if on_cpu else "h100"
        options = PlanConfig(hardware=hardware, devices=rank_and_world()[1])
        print_plan(config, replace(options, **counts))


def check_stages(config: RunConfig) -> None:
    """Raise UserError for problems of any unfinished stage, before anything is written."""
    # imported here: --help and option errors must not import torch
    from weft_rl.stages import check

    check(config, finished_stages(Path(config.out)) if config.out else {})


def run_pipeline(config: RunConfig, run: Path, argv: Sequence[str]) -> dict[str, Any]:
    """Run the unfinished stages with their evaluations and return the content of eval.json.

    argv: the arguments that gave `config`. Raises OutOfMemory, and after a signal Interrupted with
    the command that resumes the run."""
    point_trackers(config.trackers, run)
    from weft_rl.stages import STAGE_RUNNERS
    from weft_rl.stages.context import StageContext, leave_together, quiet_libraries
    from weft_rl.stages.evaluate import run as evaluate

    quiet_libraries()
    is_first = rank_and_world()[0] == 0
    results, finished = read_results(run), finished_stages(run)
    lines = drop_corrupt(config, run, finished, results)
    names, stage, checkpoint = config.in_order, "base", model_path(config) or ""
    resume = resume_command(argv, None if config.out else run)
    if is_first:
        unfinished = [name for name in names if name not in (*finished, "base", "eval")]
        lines += memory_warnings(config, unfinished)
        sys.stderr.writelines(f"weft_rl.pipeline: {line}\n" for line in lines)
    try:
        for name in names:
            if name != "eval":
                stage = name
                if stage not in finished:
                    context = StageContext(config, run, stage, checkpoint)
                    with advise_on_out_of_memory(config, stage, resume), _on_full_disk():
                        path = STAGE_RUNNERS[stage].run(context)
                    finished[stage] = str(path.relative_to(run))
                    # keep the stage order, even if a corrupt stage was retrained
                    finished = {each: finished[each] for each in names if each in finished}
                    if is_first:
                        write_json(run / FINISHED, finished)
                checkpoint = str(run / finished[stage])
            is_scored = name == "eval" or config.eval.after_each
            if is_scored and not is_evaluated(config, results, stage):
                if is_first:
                    (run / REPORT).unlink(missing_ok=True)  # outdated
                with advise_on_out_of_memory(config, "eval", resume), _on_full_disk():
                    results = evaluate(StageContext(config, run, stage, checkpoint))
    except (Interrupted, KeyboardInterrupt) as stop:
        reason = str(stop) or f"stopped in stage {stage}"
        raise Interrupted(f"{reason}; resume: python -m weft_rl.pipeline {resume}") from stop
    leave_together()
    return results


@contextmanager
def _on_full_disk() -> Generator[None]:
    """Turn a full disk into Interrupted; run_pipeline adds the command that resumes."""
    try:
        yield
    except Exception as error:
        if message := full_disk(error):
            raise Interrupted(f"{message}; free space first") from error
        raise


def drop_corrupt(
    config: RunConfig, run: Path, finished: dict[str, str], results: dict[str, Any]
) -> list[str]:
    """Remove completed stages from `finished` whose checkpoint is corrupt and still needed.

    They are retrained from the previous stage, with the same result. Returns log lines."""
    trained = [name for name in config.in_order if name != "eval"]
    is_scored = config.eval.after_each or "eval" in config.stages
    lines = []
    for i, stage in reversed([*enumerate(trained, 1)]):
        starts_next = i < len(trained) and trained[i] not in finished
        needed = starts_next or (is_scored and not is_evaluated(config, results, stage))
        if stage in finished and needed:
            path = run / finished[stage]
            problem = find_corruption(path)
            if problem is not None:
                del finished[stage]
                # every process drops the stage, but only one renames its folder
                lines += [quarantine(path, problem)] if rank_and_world()[0] == 0 else []
    return lines


def show_scores(results: dict[str, Any], config: RunConfig) -> None:
    """Print a table of scores per stage and of baselines, if there are any."""
    task, base = config.task, "base" if config.model in TOY_MODELS else INITIAL
    scored = {stage: entry[task] for stage, entry in results.items() if task in entry}
    if not scored:
        return
    rows = {base if stage == "base" else stage: entry for stage, entry in scored.items()}
    last = [*scored.values()][-1]
    metrics = [key for key, value in last.items() if isinstance(value, dict) and "ci95" in value]
    title = f"{task}, held out, percent [95% interval]"
    table = Table("stage", title=title, box=SIMPLE_HEAD, pad_edge=False)  # fits 80 columns
    for column in ("score", *metrics):
        table.add_column(column, justify="right")
    for name, entry in [*rows.items(), *last.get("baselines", {}).items()]:
        cells = [
            f"{cell['score']:.1f} [{cell['ci95'][0]:.1f}, {cell['ci95'][1]:.1f}]"
            for cell in (entry, *(entry[metric] for metric in metrics))
        ]
        table.add_row(name, *cells, style="" if name in rows else "dim")
    Console().print(table)
