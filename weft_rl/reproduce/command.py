"""`reproduce`: the paper's tables and figures at any scale, beside the paper's own numbers."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from weft_rl.config.fields import about, option, require
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.errors import Interrupted
from weft_rl.io.terminal import Console
from weft_rl.pipeline.preflight import check_run
from weft_rl.pipeline.resume import writing
from weft_rl.pipeline.run import check_stages
from weft_rl.reproduce.figures import curves_figure, time_figure, token_figure
from weft_rl.reproduce.paper_numbers import FIGURES, SCORES, TABLES
from weft_rl.reproduce.required_runs import (
    PaperRun,
    rows_of,
    tasks_of,
    unit_of,
    units_of_figure,
    units_of_table,
)
from weft_rl.reproduce.tables import norm_table, score_table
from weft_rl.runs.folder import REPORT, finished_stages
from weft_rl.sweeps.config import SweepConfig
from weft_rl.sweeps.jobs import (
    LOGS,
    Job,
    check_launcher,
    failure,
    open_pool,
    run_in,
    workers_and_threads,
)
from weft_rl.sweeps.split import split_words

_SET_HERE = dict.fromkeys(
    ("stages", "seed", "task", "eval.after_each"), "reproduce sets it for each run; leave it out"
)
_ABOUT = f"""A table (table=1..5) or a figure (figure=2..4) of the WeFT paper, or `all` of them.

Runs what is missing, keeps and reuses what is there. Any option of weft_rl.pipeline may be given
too and holds for every run, but {", ".join(_SET_HERE)}."""


@dataclass(frozen=True)
class ReproduceConfig(SweepConfig):
    """Options of `reproduce` beside those of the runs."""

    what: list[str] = field(
        default_factory=list, metadata=about("all: every table and figure", at_most=1)
    )
    table: int | None = option(None, "of the paper", at_least=min(TABLES), at_most=max(TABLES))
    figure: int | None = option(None, "of the paper", at_least=min(FIGURES), at_most=max(FIGURES))
    out: str = option("runs/reproduce", "folder of tables, figures and their runs")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.what in ([], ["all"]), "what", self.what, "write all, table=2 or figure=3")
        asked = (self.what != []) + (self.table is not None) + (self.figure is not None)
        require(asked == 1, "table", self.table, "name one of table=1..5, figure=2..4 and all")

    def tables(self) -> Sequence[int]:
        """The tables asked for."""
        return TABLES if self.what else [self.table] if self.table else []

    def figures(self) -> Sequence[int]:
        """The figures asked for."""
        return FIGURES if self.what else [self.figure] if self.figure else []


def main(argv: Sequence[str]) -> int:
    """Run what is missing, write tables and figures; returns the exit status."""
    own, given = split_words(argv, ReproduceConfig, _SET_HERE)
    options = parse_options(
        ReproduceConfig, own, command="weft_rl.reproduce", description=_ABOUT, positional="what"
    )
    config = load_run_config([*given, "stages=[weft,rl]"], command="weft_rl.reproduce")
    check_launcher(options)
    units = [unit for number in options.tables() for unit in _table(number, options, config)]
    units += [unit for number in options.figures() for unit in _figure(number, options, config)]
    units = list(dict.fromkeys([unit.trained for unit in units] + units))
    stages = ["weft", "rl"] if any(unit.after_rl for unit in units) else ["weft"]
    check_run(replace(config, stages=stages), here=options.launcher == "local")
    for unit in dict.fromkeys(replace(unit, seed=options.seeds[0]) for unit in units):
        check_stages(load_run_config(unit.words(given), command="weft_rl.reproduce"))
    folder = Path(options.out)
    with writing(folder):
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
    paths = {unit: folder / unit.folder(given) for unit in units}
    failed = _run_all(paths, given, options, config)
    for path in _write(folder, paths, options, config):
        Console().print(f"written: {path}", soft_wrap=True, highlight=False)
    for name, status in failed.items():
        sys.stderr.write(f"weft_rl.reproduce: {failure(folder, name, status)}\n")
    if failed and set(failed.values()) == {3}:
        raise Interrupted(f"{', '.join(failed)} stopped before the end; repeat the command")
    return 1 if failed else 0


def _table(number: int, options: ReproduceConfig, config: RunConfig) -> list[PaperRun]:
    return units_of_table(number, options.seeds, config)


def _figure(number: int, options: ReproduceConfig, config: RunConfig) -> list[PaperRun]:
    return units_of_figure(number, options.seeds, config)


def _run_all(
    paths: Mapping[PaperRun, Path],
    given: Sequence[str],
    options: ReproduceConfig,
    config: RunConfig,
) -> dict[str, int]:
    """Train, evaluate on further tasks, then time: what is missing. Statuses of failed runs."""
    folder = Path(options.out)
    pool = open_pool(options, folder, *workers_and_threads(options, config.device, len(paths)))
    # a run's last work is its report: one that was stopped between scores and report goes on
    left = [
        unit
        for unit, path in paths.items()
        if not (unit.is_done(path) and (path / REPORT).exists())
    ]
    statuses: dict[str, int] = {}
    if config.model in TOY_MODELS and left:
        # left to the runs, those that start together would each pretrain it
        base = Job("base", [*given, "stages=[base]", "eval.after_each=false"])
        statuses = run_in(pool, [base], folder, 1)
        if statuses["base"]:
            return statuses
    training = [unit for unit in left if unit == unit.trained and not unit.timed]
    jobs = [Job(paths[unit].name, unit.words(given)) for unit in training]
    statuses |= run_in(pool, jobs, folder, len(jobs))
    jobs = [
        Job(paths[unit].name, [*unit.words(given), *_model(unit, paths)])
        for unit in left
        if unit != unit.trained and unit.trained.is_done(paths[unit.trained])
    ]
    statuses |= run_in(pool, jobs, folder, len(jobs))
    # one at a time on all cores: what runs beside a timed run is in its time
    jobs = [Job(paths[unit].name, unit.words(given)) for unit in left if unit.timed]
    alone = replace(pool, workers=1, threads=pool.threads * pool.workers)
    statuses |= run_in(alone, jobs, folder, len(jobs))
    return {name: status for name, status in statuses.items() if status}


def _model(unit: PaperRun, paths: Mapping[PaperRun, Path]) -> list[str]:
    """The checkpoint that an evaluation starts from; a published base is the model as given."""
    run = paths[unit.trained]
    finished = finished_stages(run)
    return [f"model={run / finished[unit.stage]}"] if unit.stage in finished else []


def _write(
    folder: Path, paths: Mapping[PaperRun, Path], options: ReproduceConfig, config: RunConfig
) -> list[Path]:
    """Write every table and figure asked for, of whatever its runs hold; the files written."""
    written: list[Path] = []
    for number in options.tables():
        if number not in SCORES:
            runs = {unit: paths[unit] for unit in _table(number, options, config)}
            written += norm_table(folder, runs)
            continue
        cells = {
            (row, task): {
                seed: (paths[unit], unit.evaluated)
                for seed in options.seeds
                if (unit := unit_of(row, seed, task, config)) in paths and unit.is_done(paths[unit])
            }
            for row in rows_of(number, config)
            for task in tasks_of(config)
        }
        written += score_table(folder, number, cells, config.model, options.seeds)
    draw = {2: token_figure, 3: curves_figure, 4: time_figure}
    for number in options.figures():
        runs = {unit: paths[unit] for unit in _figure(number, options, config)}
        written += draw[number](folder, runs)
    return written
