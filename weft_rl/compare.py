"""`compare`: several cold starts, each followed by RL, paired over seeds."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml
from rich.table import Table

from weft_rl.cli import execute, writing
from weft_rl.config.fields import about, option, require, shown
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.overrides import changed_options, resume_command
from weft_rl.config.schema import COLD_STARTS, INITIAL_STAGES, RunConfig
from weft_rl.errors import Interrupted, UserError
from weft_rl.evaluation.paired_runs import (
    RESULT,
    compare_runs,
    read_arm_run,
    require_same_options,
    run_name,
)
from weft_rl.evaluation.settings import is_evaluated
from weft_rl.io.terminal import Console
from weft_rl.pipeline.preflight import check_run
from weft_rl.pipeline.resume import environment, fresh_folder
from weft_rl.pipeline.run import check_stages, show_plan
from weft_rl.plot.curves import draw_means, mean_curves
from weft_rl.plot.figures import save_figure
from weft_rl.report.comparison import (
    notes,
    reward_curves,
    score_rows,
    sentences,
    to_markdown,
    write_comparison_report,
)
from weft_rl.runs.atomic_io import write_json, write_text
from weft_rl.runs.folder import CONFIG, CURVES, REPORT, read_config, read_results
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

SUMMARY = "comparison.md"
# Options that compare sets itself, with the alternative for the user.
_RESERVED = {
    "stages": "compare sets it for each run; write arms=[...]",
    "seed": "compare sets it for each run; write seeds=[...]",
    "eval.after_each": "compare needs every stage's evaluation; leave it out",
}
_ABOUT = f"""Several cold starts, each followed by RL, paired over seeds.

Accepts any option of weft_rl.pipeline for all runs (its --help lists them), except
{", ".join(_RESERVED)}, which compare sets.
--config FILE: options of a YAML file, such as a comparison's config.yaml.
--dry-run: print options, data and plan; train nothing."""


@dataclass(frozen=True)
class CompareConfig(SweepConfig):
    """Options of `compare` beside those of the runs."""

    arms: list[str] = field(
        metadata=about(f"cold starts, the reference first; of {' '.join(COLD_STARTS)}", at_least=1)
    )
    out: str | None = option(None, "directory; null: runs/<time>-compare-<arms>")

    def __post_init__(self) -> None:
        super().__post_init__()
        for arm in self.arms:
            rule = f"{shown(arm)} is not a cold start; try one of {', '.join(COLD_STARTS)}"
            require(arm in COLD_STARTS, "arms", self.arms, rule)
            require(self.arms.count(arm) == 1, "arms", self.arms, f"{arm} is listed twice")

    def runs(self) -> dict[str, tuple[str, int]]:
        """Return arm and seed of every run by its name, seed by seed."""
        return {run_name(arm, seed): (arm, seed) for seed in self.seeds for arm in self.arms}


def main(argv: Sequence[str]) -> int:
    """Run the comparison and return the exit status."""
    options, config, arguments = read_options(argv)
    if "--print-config" in argv:
        sys.stdout.write(_as_yaml(options, config))
        return 0
    check_launcher(options)
    check_run(config, here=options.launcher == "local")
    stages = replace(config, stages=[*options.arms, "rl"])
    check_stages(stages)
    if "--dry-run" in argv:
        count = f"{len(options.runs())} runs, each of one arm, then rl"
        sys.stdout.write(f"{_as_yaml(options, config)}\n{count}\n")
        show_plan(stages)
        return 0
    folder = open_comparison(options, config)
    require_same_options(folder, options.arms, options.seeds)
    runs = options.runs()

    def pending() -> list[Job]:
        return [
            Job(name, [*arguments, f"stages=[{arm},rl]", f"seed={seed}"])
            for name, (arm, seed) in runs.items()
            if not is_done(folder / name, replace(config, seed=seed), arm)
        ]

    jobs = pending()
    pool = open_pool(options, folder, config.device, len(runs))
    resume = resume_command(argv, None if options.out else folder)
    resume = f"resume with: python -m weft_rl.compare {resume}"
    try:
        initial = stages.in_order[0] if jobs else ""
        shared = initial in INITIAL_STAGES
        statuses = train_initial(pool, folder, arguments, initial) if shared else {}
        if not any(statuses.values()):
            statuses = run_in(pool, jobs, folder, len(runs))
    except KeyboardInterrupt as stop:
        done = f"{len(runs) - len(pending())} of {len(runs)} runs done"
        raise Interrupted(f"interrupted with {done}; {resume}") from stop
    write_results(folder, options, config.task)
    return exit_status("weft_rl.compare", folder, statuses, resume)


def read_options(argv: Sequence[str]) -> tuple[CompareConfig, RunConfig, list[str]]:
    """Return the comparison's options, the config of its first run, and the run arguments.

    Raises UserError for invalid options and SystemExit(0) after --help."""
    given = [argument for argument in argv if argument not in ("--print-config", "--dry-run")]
    for_command, arguments = split_arguments(given, CompareConfig, _RESERVED)
    options = parse_options(
        CompareConfig, for_command, command="weft_rl.compare", description=_ABOUT
    )
    seed = f"seed={options.seeds[0]}"
    first, *_ = [
        load_run_config([*arguments, f"stages=[{arm},rl]", seed], command="weft_rl.compare")
        for arm in options.arms
    ]
    # resume=never applies to the comparison directory only: retried runs always resume
    return options, first, [each for each in arguments if each != "resume=never"]


def open_comparison(options: CompareConfig, config: RunConfig) -> Path:
    """Create the comparison's directory, or resume one with the same options.

    Arms and seeds may be added; finished runs are kept. Raises UserError if the directory cannot be
    written or has other content."""
    name = f"compare-{'-'.join(options.arms)}"
    folder = Path(options.out) if options.out else fresh_folder(name)
    with writing(folder):
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        if (folder / CONFIG).exists():
            _check_same(folder, options, config)
        elif any(path.name != LOGS for path in folder.iterdir()):
            raise UserError(f"out={folder}: not empty and not a comparison; choose another out")
        write_text(folder / CONFIG, _as_yaml(options, config) + environment())
    return folder


def _check_same(folder: Path, options: CompareConfig, config: RunConfig) -> None:
    """Raise UserError unless the saved comparison differs only by added arms and seeds."""
    if config.resume == "never":
        raise UserError(
            f"out={folder}: holds a comparison; leave out resume=never, or choose another out"
        )
    saved = read_config(folder)
    if not {"arms", "seeds", "run"} <= saved.keys():
        raise UserError(f"out={folder}: holds a run, not a comparison; choose another out")
    for key, given in (("arms", options.arms), ("seeds", options.seeds)):
        # the first arm is the reference: it must not change
        if not set(saved[key]) <= set(given) or (key == "arms" and saved[key][:1] != given[:1]):
            raise UserError(
                f"out={folder}: holds {key}={shown(saved[key])}; repeat them, then add others"
            )
    different = changed_options(yaml.safe_dump(saved["run"]), config, [])
    different = [key for key in different if key not in _RESERVED]
    if different:
        raise UserError(
            f"out={folder}: holds another comparison (different: {', '.join(different)}); choose "
            "another out, or repeat its options"
        )


def _as_yaml(options: CompareConfig, config: RunConfig) -> str:
    run = {key: value for key, value in asdict(config).items() if key not in ("stages", "seed")}
    return yaml.safe_dump({**asdict(options), "run": run}, sort_keys=False)


def is_done(unit: Path, config: RunConfig, arm: str) -> bool:
    """Return whether a run has its report and all evaluations for these options."""
    evaluated = read_results(unit)
    # runs of earlier versions may lack the base or cold-start evaluation
    stages = [stage for stage in (*INITIAL_STAGES, arm) if stage in evaluated]
    done = all(is_evaluated(config, evaluated, stage) for stage in [*stages, "rl"])
    return done and (unit / REPORT).exists()


def write_results(folder: Path, options: CompareConfig, task: str) -> None:
    """Write the result files and print the tables, once a run has been evaluated."""
    names = options.runs()
    runs = [read_arm_run(folder / name, arm, seed, task) for name, (arm, seed) in names.items()]
    if not any(run.scores for run in runs):
        return
    result = compare_runs(runs, options.arms, options.seeds, task)
    revisions = {read_config(folder / name).get("revision") for name in names}
    result["revisions"] = sorted(str(revision) for revision in revisions if revision)
    write_json(folder / RESULT, result)
    write_text(folder / SUMMARY, to_markdown(result))
    means = mean_curves(reward_curves(folder, result))
    if means:
        title = f"rewards of {folder.resolve().name}"
        save_figure(draw_means("reward in RL", means), folder / CURVES, title)
    report = write_comparison_report(folder)
    header, *rows = score_rows(result)
    title = f"{task}, {result['n']} held-out records, percent [95% interval]"
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*row, style="dim" if row[0] == "no model" else "")
    console = Console()
    console.print(table)
    written = [name for name in (RESULT, SUMMARY, CURVES) if (folder / name).exists()]
    files = [f"{folder}: {', '.join(written)}", f"report: {report}"]
    for line in (*notes(result), *sentences(result), *files):
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(execute("weft_rl.compare", main, sys.argv[1:]))
