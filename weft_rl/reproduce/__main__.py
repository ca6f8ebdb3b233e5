"""`reproduce`: the paper's tables and figures at any scale, next to the paper's numbers."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from weft_rl.cli import execute, writing
from weft_rl.config.fields import about, option, require
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.schema import INITIAL_STAGES, RunConfig
from weft_rl.io.terminal import Console
from weft_rl.pipeline.preflight import check_run
from weft_rl.pipeline.run import check_stages
from weft_rl.reproduce.figures import curves_figure, time_figure, token_figure
from weft_rl.reproduce.paper import SCORES, PaperRun, runs_of_figure, runs_of_table
from weft_rl.reproduce.tables import norm_table, score_table
from weft_rl.runs.folder import REPORT, finished_stages
from weft_rl.sweeps.config import SweepConfig, split_arguments
from weft_rl.sweeps.jobs import (
    LOGS,
    Job,
    check_launcher,
    exit_status,
    open_pool,
    run_in,
    train_initial,
)

_RESERVED = dict.fromkeys(
    ("stages", "seed", "task", "eval.after_each"), "reproduce sets it for each run; leave it out"
)
_ABOUT = f"""A table (table=1..5) or figure (figure=2..4) of the WeFT paper, or `all` of them.

Runs what is missing and reuses finished runs. Accepts any option of weft_rl.pipeline for all runs,
except {", ".join(_RESERVED)}, which reproduce sets.
--config FILE: options of a YAML file, such as a run's config.yaml."""
_FIGURES = {2: token_figure, 3: curves_figure, 4: time_figure}


@dataclass(frozen=True)
class ReproduceConfig(SweepConfig):
    """Options of `reproduce` beside those of the runs."""

    what: list[str] = field(
        default_factory=list, metadata=about("all: every table and figure", at_most=1)
    )
    table: int | None = option(None, "table of the paper", at_least=1, at_most=5)
    figure: int | None = option(None, "figure of the paper", at_least=2, at_most=4)
    out: str = option("runs/reproduce", "directory of tables, figures and their runs")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.what in ([], ["all"]), "what", self.what, "write all, table=2 or figure=3")
        given = (self.what != []) + (self.table is not None) + (self.figure is not None)
        require(given == 1, "table", self.table, "set one of table=1..5, figure=2..4 and all")


def main(argv: Sequence[str]) -> int:
    """Run what is missing, write tables and figures, and return the exit status."""
    for_command, given = split_arguments(argv, ReproduceConfig, _RESERVED)
    options = parse_options(
        ReproduceConfig,
        for_command,
        command="weft_rl.reproduce",
        description=_ABOUT,
        positional="what",
    )
    config = load_run_config([*given, "stages=[weft,rl]"], command="weft_rl.reproduce")
    check_launcher(options)
    numbers = [n for n in (*SCORES, 5) if options.what or n == options.table]
    tables = {n: runs_of_table(n, options.seeds, config) for n in numbers}
    numbers = [n for n in _FIGURES if options.what or n == options.figure]
    figures = {n: runs_of_figure(n, options.seeds, config) for n in numbers}
    units = [unit for runs in (*tables.values(), *figures.values()) for unit in runs]
    units = list(dict.fromkeys([unit.trained for unit in units] + units))
    stages = ["weft", "rl"] if any(unit.after_rl for unit in units) else ["weft"]
    check_run(replace(config, stages=stages), here=options.launcher == "local")
    for unit in dict.fromkeys(replace(unit, seed=options.seeds[0]) for unit in units):
        check_stages(load_run_config(unit.arguments(given), command="weft_rl.reproduce"))
    folder = Path(options.out)
    with writing(folder):
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
    paths = {unit: folder / unit.folder(given) for unit in units}
    statuses = _run_all(paths, given, options, config)
    written: list[Path] = []
    for number, runs in tables.items():
        paths_of_table = {unit: paths[unit] for unit in runs}
        if number in SCORES:
            written += score_table(folder, number, paths_of_table, config, options.seeds)
        else:
            written += norm_table(folder, paths_of_table)
    for number, runs in figures.items():
        written += _FIGURES[number](folder, {unit: paths[unit] for unit in runs})
    for path in written:
        Console().print(f"written: {path}", soft_wrap=True)
    return exit_status("weft_rl.reproduce", folder, statuses, "repeat the command to resume")


def _run_all(
    paths: Mapping[PaperRun, Path],
    given: Sequence[str],
    options: ReproduceConfig,
    config: RunConfig,
) -> dict[str, int]:
    """Train, evaluate the other tasks, then time; skip finished runs. Returns exit statuses."""
    folder = Path(options.out)
    pool = open_pool(options, folder, config.device, len(paths))
    # timed runs use the machine exclusively: concurrent runs would slow them down
    alone = replace(pool, workers=1, threads=pool.threads * pool.workers)
    # a run writes its report last
    done = [u for u, path in paths.items() if u.is_done(path) and (path / REPORT).exists()]
    pending = [unit for unit in paths if unit not in done]
    statuses: dict[str, int] = {}
    initial = config.in_order[0]
    if initial in INITIAL_STAGES and pending:
        statuses = train_initial(pool, folder, given, initial)
        if statuses[initial]:
            return statuses
    timed = [unit for unit in pending if unit.timed]
    trained = [unit for unit in pending if unit == unit.trained and not unit.timed]
    others = [unit for unit in pending if unit != unit.trained]
    for where, units in ((pool, trained), (pool, others), (alone, timed)):
        jobs = [
            Job(paths[unit].name, [*unit.arguments(given), *_model(unit, paths)])
            for unit in units
            if unit.timed or unit == unit.trained or unit.trained.is_done(paths[unit.trained])
        ]
        statuses |= run_in(where, jobs, folder, len(jobs))
    return statuses


def _model(unit: PaperRun, paths: Mapping[PaperRun, Path]) -> list[str]:
    """Return the model= argument of an evaluation: its trained checkpoint, if there is one."""
    if unit == unit.trained:
        return []
    run = paths[unit.trained]
    finished = finished_stages(run)
    return [f"model={run / finished[unit.stage]}"] if unit.stage in finished else []


if __name__ == "__main__":
    sys.exit(execute("weft_rl.reproduce", main, sys.argv[1:]))
