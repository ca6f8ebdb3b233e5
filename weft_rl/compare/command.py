"""`compare`: several cold starts, each with RL after it, paired over seeds."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from weft_rl.config.fields import about, option, require, shown
from weft_rl.config.identity import changed_options
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.overrides import resume_command
from weft_rl.config.schema import STAGES, RunConfig
from weft_rl.errors import Interrupted, UserError
from weft_rl.evaluation.paired_runs import RESULT, check_alike, compare_units, read_unit, unit_name
from weft_rl.evaluation.settings import is_evaluated
from weft_rl.io.terminal import Console
from weft_rl.pipeline.preflight import check_run, start_model
from weft_rl.pipeline.resume import environment, fresh_folder, writing
from weft_rl.pipeline.run import check_stages
from weft_rl.plot.curves import draw_means, mean_curves, save_figure
from weft_rl.report.comparison_page import reward_curves, write_comparison_report
from weft_rl.report.comparison_tables import notes, score_rows, sentences, to_markdown
from weft_rl.runs.folder import (
    CONFIG,
    CURVES,
    REPORT,
    read_config,
    read_results,
    write_json,
    write_text,
)
from weft_rl.sweeps.config import SweepConfig
from weft_rl.sweeps.jobs import (
    LOGS,
    Job,
    Pool,
    check_launcher,
    failure,
    last_line,
    open_pool,
    run_in,
    workers_and_threads,
)
from weft_rl.sweeps.split import split_words

PAGE = "comparison.md"
ARMS = tuple(stage for stage in STAGES if stage not in ("base", "rl", "eval"))
# Of the options of a run, those that differ between the runs of a comparison or make it one.
_SET_HERE = {
    "stages": "compare sets it for each run; write arms=[...]",
    "seed": "compare sets it for each run; write seeds=[...]",
    "eval.after_each": "compare needs every stage's evaluation; leave it out",
}
_ABOUT = f"""Several cold starts, each with RL after it, paired over seeds.

Any option of weft_rl.pipeline may be given too and holds for every run (its --help lists them),
but {", ".join(_SET_HERE)}: compare sets these."""


@dataclass(frozen=True)
class CompareConfig(SweepConfig):
    """Options of `compare` beside those of the runs."""

    arms: list[str] = field(
        metadata=about(f"cold starts, the first is the reference; of {' '.join(ARMS)}", at_least=1)
    )
    out: str | None = option(None, "folder; null: runs/<time>-compare-<arms>")

    def __post_init__(self) -> None:
        super().__post_init__()
        for arm in self.arms:
            rule = f"{shown(arm)} is no cold start; there are {', '.join(ARMS)}"
            require(arm in ARMS, "arms", self.arms, rule)
            require(self.arms.count(arm) == 1, "arms", self.arms, f"{arm} stands there twice")

    def units(self) -> list[tuple[str, int]]:
        """Arm and seed of every run; all arms of a seed before the next seed."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]


def main(argv: Sequence[str]) -> int:
    """Run the comparison that the arguments ask for; returns the exit status."""
    options, config, words = read_options(argv)
    if "--print-config" in argv:
        sys.stdout.write(_as_yaml(options, config))
        return 0
    check_launcher(options)
    check_run(config, here=options.launcher == "local")
    check_stages(replace(config, stages=[*options.arms, "rl"]))
    base = start_model(config) is None
    total = len(options.units())
    workers, threads = workers_and_threads(options, config.device, total)
    folder = open_comparison(options, config)
    check_alike(folder, options.arms, options.seeds)
    pool = open_pool(options, folder, workers, threads)
    jobs = [
        Job(unit_name(arm, seed), [*words, f"stages=[{arm},rl]", f"seed={seed}"])
        for arm, seed in options.units()
        if not is_done(folder / unit_name(arm, seed), replace(config, seed=seed), arm)
    ]
    again = resume_command(argv, None if options.out else folder)
    again = f"go on with: python -m weft_rl.compare {again}"
    try:
        statuses = _train_base(pool, folder, words) if base and jobs else {}
        if not any(statuses.values()):
            statuses = run_in(pool, jobs, folder, total)
    except KeyboardInterrupt as stop:
        done = sum(
            is_done(folder / unit_name(arm, seed), replace(config, seed=seed), arm)
            for arm, seed in options.units()
        )
        raise Interrupted(f"stopped with {done} of {total} runs done; {again}") from stop
    failed = {name: status for name, status in statuses.items() if status != 0}
    for name, status in failed.items():
        sys.stderr.write(f"weft_rl.compare: {failure(folder, name, status)}\n")
    write_results(folder, options, config.task)
    # 3 is what a run says that can go on, for instance after a full disk
    if failed and set(failed.values()) == {3}:
        raise Interrupted(f"{', '.join(failed)} stopped before the end; {again}")
    return 1 if failed else 0


def read_options(argv: Sequence[str]) -> tuple[CompareConfig, RunConfig, list[str]]:
    """The comparison's options, those of its first run, and the arguments that every run gets.

    Raises UserError for a mistake in either and SystemExit(0) after --help."""
    if any(word in ("--help", "-h") for word in argv):
        parse_options(CompareConfig, ["--help"], command="weft_rl.compare", description=_ABOUT)
    asked = [word for word in argv if word != "--print-config"]
    own, words = split_words(asked, CompareConfig, _SET_HERE)
    options = parse_options(CompareConfig, own, command="weft_rl.compare", description=_ABOUT)
    seed = f"seed={options.seeds[0]}"
    first, *_ = [
        load_run_config([*words, f"stages=[{arm},rl]", seed], command="weft_rl.compare")
        for arm in options.arms
    ]
    # the folder is the comparison's, and a run that is tried again goes on in its own
    return options, first, [word for word in words if word != "resume=never"]


def open_comparison(options: CompareConfig, config: RunConfig) -> Path:
    """Create the comparison's folder, or take up one of the same options.

    Arms and seeds may join one, whose finished runs are kept. Raises UserError when the folder
    cannot be written or holds anything else."""
    if options.out is None:
        folder = fresh_folder(f"compare-{'-'.join(options.arms)}")
    else:
        folder = Path(options.out)
    with writing(folder):
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        known = folder / CONFIG
        if known.exists():
            _check_same(known, options, config)
        elif any(path.name != LOGS for path in folder.iterdir()):
            raise UserError(f"out={folder}: is not empty and holds no comparison; choose another")
        write_text(known, _as_yaml(options, config) + environment())
    return folder


def _check_same(known: Path, options: CompareConfig, config: RunConfig) -> None:
    """Raise UserError for a folder that holds another comparison: the same one may have further
    arms and seeds, and other options that change no weights."""
    folder = known.parent
    if config.resume == "never":
        raise UserError(
            f"out={folder}: holds a comparison already; leave out resume=never to go on with it, "
            "or choose another out"
        )
    saved = read_config(folder)
    if not {"arms", "seeds", "run"} <= saved.keys():
        raise UserError(f"out={folder}: holds a run, not a comparison; choose another out")
    for key, asked in (("arms", options.arms), ("seeds", options.seeds)):
        # more may be asked of a comparison, which keeps its reference, the first arm
        if not set(saved[key]) <= set(asked) or (key == "arms" and saved[key][:1] != asked[:1]):
            rule = f"holds {key}={shown(saved[key])}"
            raise UserError(f"out={folder}: {rule}; name them all, in that order, and any further")
    different = changed_options(yaml.safe_dump(saved["run"]), config, [])
    # stages and seed are each run's own
    different = [key for key in different if key not in _SET_HERE]
    if different:
        raise UserError(
            f"out={folder}: holds another comparison (different: {', '.join(different)}); "
            "choose another out, or repeat its options"
        )


def _as_yaml(options: CompareConfig, config: RunConfig) -> str:
    run = {key: value for key, value in asdict(config).items() if key not in ("stages", "seed")}
    return yaml.safe_dump({**asdict(options), "run": run}, sort_keys=False)


def is_done(unit: Path, config: RunConfig, arm: str) -> bool:
    """Whether a run has been evaluated after each stage as these options have it, and has come to
    its end, which is its report."""
    evaluated = read_results(unit)
    # what an earlier version has not evaluated is none of this one's work
    stages = [stage for stage in ("base", arm) if stage in evaluated]
    done = all(is_evaluated(config, evaluated, stage) for stage in [*stages, "rl"])
    return done and (unit / REPORT).exists()


def _train_base(pool: Pool, folder: Path, words: Sequence[str]) -> dict[str, int]:
    """Train the base model that all runs start from, or find it in the cache; its exit status.

    Left to the runs, those that start together would each train it. Raises UserError when the run
    finds a mistake."""
    job = Job("base", [*words, "stages=[base]", "eval.after_each=false"])
    statuses = run_in(pool, [job], folder, 1)
    if statuses[job.name] == 2:
        line = last_line(folder / LOGS / f"{job.name}.log")
        raise UserError(line.removeprefix("weft_rl.pipeline: "))
    return statuses


def write_results(folder: Path, options: CompareConfig, task: str) -> None:
    """Write comparison.json, comparison.md, the curves and the report, and print the tables.

    Nothing when no run has come as far as an evaluation."""
    paths = {unit: folder / unit_name(*unit) for unit in options.units()}
    units = [read_unit(path, arm, seed, task) for (arm, seed), path in paths.items()]
    if not any(unit.scores for unit in units):
        return
    result = compare_units(units, options.arms, options.seeds, task)
    revisions = {read_config(path).get("revision") for path in paths.values()}
    result["revisions"] = sorted(str(revision) for revision in revisions if revision)
    write_json(folder / RESULT, result)
    write_text(folder / PAGE, to_markdown(result))
    means = mean_curves(reward_curves(folder, result))
    if means:
        title = f"rewards of {folder.resolve().name}"
        save_figure(draw_means("reward in RL", means), folder / CURVES, title)
    report = write_comparison_report(folder)
    show(result)
    written = [name for name in (RESULT, PAGE, CURVES) if (folder / name).exists()]
    Console().print(f"{folder}: {', '.join(written)}", soft_wrap=True, highlight=False)
    Console().print(f"report: {report}", soft_wrap=True, highlight=False)


def show(result: dict[str, Any]) -> None:
    """Print the scores and what they say."""
    console = Console()
    head, *rows = score_rows(result)
    title = f"{result['task']}, {result['n']} held out, percent [95 % interval]"
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row, style="dim" if row[0] == "no model" else "")
    console.print(table)
    for line in [*notes(result), *sentences(result)]:
        console.print(line, soft_wrap=True)
