"""Runs behind the paper's tables and figures: arguments and directories."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

import yaml

from weft_rl.config.load import load_run_config
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.reproduce.paper_numbers import DATA_SETS, SCORES, TASKS, Row
from weft_rl.runs.folder import FINISHED, read_json, read_results

# The toy vocabulary covers the generated tasks only.
_GENERATED_TASKS = ("sudoku", "countdown")
_MAIN_DATA = next(iter(DATA_SETS))


@dataclass(frozen=True)
class PaperRun:
    """A cold start (or the base model) on a data set, optionally followed by RL.

    task: the evaluated task. The run that trains evaluates the first task of TASKS; the other tasks
    have separate runs on its checkpoint. timed: trained alone on the machine, not evaluated."""

    arm: str
    data: str
    seed: int
    after_rl: bool = False
    task: str = TASKS[0]
    timed: bool = False

    @property
    def stage(self) -> str:
        """The stage whose checkpoint is evaluated."""
        return "rl" if self.after_rl else self.arm

    @property
    def trained(self) -> "PaperRun":
        """The run that trains the checkpoint, which evaluates the first task."""
        return replace(self, task=TASKS[0])

    @property
    def evaluated(self) -> str:
        """The stage name of the scores in eval.json."""
        return self.stage if self == self.trained else "base"

    def arguments(self, given: Sequence[str]) -> list[str]:
        """Return the pipeline arguments without out= and model=. `given` takes precedence."""
        only_evaluates = self.arm == "base" or self != self.trained
        stages = ["eval"] if only_evaluates else [self.arm, "rl"] if self.after_rl else [self.arm]
        options = {"data": self.data}
        if self.timed:
            options["eval.after_each"] = "false"
        else:
            options["cold_start.logging_steps"] = "1"  # Table 5 needs every gradient norm
        options |= {key: value for key, _, value in (item.partition("=") for item in given)}
        # a checkpoint has no preset
        options.setdefault("preset", options.get("model", RunConfig.model))
        options |= {"stages": f"[{','.join(stages)}]", "seed": str(self.seed), "task": self.task}
        return [f"{key}={value}" for key, value in options.items()]

    def folder(self, given: Sequence[str]) -> str:
        """Return the name of the run directory, which ends in a digest of the options."""
        config = load_run_config(self.arguments(given), command="weft_rl.reproduce")
        options = {key: value for key, value in asdict(config).items() if key != "trackers"}
        text = yaml.safe_dump(options, sort_keys=False)
        digest = blake2b(text.encode(), digest_size=4).hexdigest()
        marks = {"rl": self.after_rl, "timed": self.timed, self.data: self.data not in TOY_MODELS}
        marks[self.task] = self != self.trained
        name = "-".join([self.arm, *(mark for mark, applies in marks.items() if applies)])
        return f"{name}-seed{self.seed}-{digest}"

    def is_done(self, path: Path) -> bool:
        """Return whether the run directory has all data for tables and figures."""
        if self.timed:
            return self.stage in read_json(path / FINISHED, {})
        return self.task in read_results(path).get(self.evaluated, {})


def tasks_of(config: RunConfig) -> tuple[str, ...]:
    """Return the paper's tasks that the model's vocabulary covers."""
    return _GENERATED_TASKS if config.model in TOY_MODELS else TASKS


def rows_of(number: int, config: RunConfig) -> list[Row]:
    """Return the rows of a score table; toy models have one data set only."""
    toy = config.model in TOY_MODELS
    return [row for row in SCORES[number][1] if not toy or row.data == _MAIN_DATA]


def run_of_cell(row: Row, seed: int, task: str, config: RunConfig) -> PaperRun:
    """Return the run behind a cell of a score table."""
    return PaperRun(row.arm, _data(config, row.data), seed, row.after_rl, task)


def _data(config: RunConfig, paper_data: str = _MAIN_DATA) -> str:
    return config.model if config.model in TOY_MODELS else paper_data


def runs_of_table(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """Return the runs of a table, by seed."""
    if number not in SCORES:  # Table 5, gradient norms
        arms = ("weft_entropy", "weft")
        return [PaperRun(arm, _data(config), seed) for seed in seeds for arm in arms]
    rows = rows_of(number, config)
    tasks = [task for task in tasks_of(config) if task in rows[0].printed]
    return [
        run_of_cell(row, seed, task, config) for seed in seeds for row in rows for task in tasks
    ]


def runs_of_figure(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """Return the runs of a figure by seed: 2 token entropies, 3 rewards, 4 training time."""
    arms = ("weft",) if number == 2 else ("sft", "weft")
    return [
        PaperRun(arm, _data(config), seed, after_rl=number == 3, timed=number == 4)
        for seed in seeds
        for arm in arms
    ]
