"""The runs behind the paper's tables and figures: their arguments and their directories."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

import yaml

from weft_rl.config.load import load_run_config
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.reproduce.paper_numbers import DATA_SETS, SCORES, TASKS, Row
from weft_rl.runs.folder import FINISHED, read_json, read_results

# Toy models have a vocabulary for the generated tasks only.
_GENERATED_TASKS = ("sudoku", "countdown")
_MAIN_DATA = next(iter(DATA_SETS))


@dataclass(frozen=True)
class PaperRun:
    """A cold start (or the base model) on a data set, followed by RL or not.

    task: the evaluation's. Training runs are evaluated on the first of the paper's tasks; each
    other task is a run of its own that begins from the trained checkpoint. timed: trained alone on
    the machine and not evaluated."""

    arm: str
    data: str
    seed: int
    after_rl: bool = False
    task: str = TASKS[0]
    timed: bool = False

    @property
    def stage(self) -> str:
        """The stage whose checkpoint counts."""
        return "rl" if self.after_rl else self.arm

    @property
    def trained(self) -> "PaperRun":
        """The run that trains the checkpoint: this one for the first task."""
        return replace(self, task=TASKS[0])

    @property
    def evaluated(self) -> str:
        """The stage that has the scores in eval.json."""
        return self.stage if self == self.trained else "base"

    def arguments(self, given: Sequence[str]) -> list[str]:
        """The pipeline's arguments, without out and an evaluation's model.

        given: the user's options for every run, which override those set here."""
        only_evaluates = self.arm == "base" or self != self.trained
        stages = ["eval"] if only_evaluates else [self.arm, "rl"] if self.after_rl else [self.arm]
        options = {"data": self.data}
        if self.timed:
            options["eval.after_each"] = "false"
        else:
            options["cold_start.logging_steps"] = "1"  # Table 5 needs the norm of every step
        options |= {key: value for key, _, value in (item.partition("=") for item in given)}
        # an evaluation's model is a checkpoint, which has no preset of its own
        options.setdefault("preset", options.get("model", RunConfig.model))
        options |= {"stages": f"[{','.join(stages)}]", "seed": str(self.seed), "task": self.task}
        return [f"{key}={value}" for key, value in options.items()]

    def folder(self, given: Sequence[str]) -> str:
        """The name of the run directory, with a digest of the options: others get another one."""
        config = load_run_config(self.arguments(given), command="weft_rl.reproduce")
        options = {key: value for key, value in asdict(config).items() if key != "trackers"}
        text = yaml.safe_dump(options, sort_keys=False)
        digest = blake2b(text.encode(), digest_size=4).hexdigest()
        marks = {"rl": self.after_rl, "timed": self.timed, self.data: self.data not in TOY_MODELS}
        marks[self.task] = self != self.trained
        name = "-".join([self.arm, *(mark for mark, applies in marks.items() if applies)])
        return f"{name}-seed{self.seed}-{digest}"

    def is_done(self, path: Path) -> bool:
        """Whether the run directory has all that tables and figures read."""
        if self.timed:
            return self.stage in read_json(path / FINISHED, {})
        return self.task in read_results(path).get(self.evaluated, {})


def tasks_of(config: RunConfig) -> tuple[str, ...]:
    """The paper's tasks that the model has a vocabulary for."""
    return _GENERATED_TASKS if config.model in TOY_MODELS else TASKS


def rows_of(number: int, config: RunConfig) -> list[Row]:
    """The rows of a table of scores; a toy model has one data set only."""
    toy = config.model in TOY_MODELS
    return [row for row in SCORES[number][1] if not toy or row.data == _MAIN_DATA]


def run_of_cell(row: Row, seed: int, task: str, config: RunConfig) -> PaperRun:
    """The run behind a cell of a table of scores."""
    return PaperRun(row.arm, _data(config, row.data), seed, row.after_rl, task)


def _data(config: RunConfig, paper_data: str = _MAIN_DATA) -> str:
    """The paper's data set, or a toy model's own, which has the model's name."""
    return config.model if config.model in TOY_MODELS else paper_data


def runs_of_table(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """The runs of a table, by seed."""
    if number not in SCORES:  # Table 5, gradient norms
        arms = ("weft_entropy", "weft")
        return [PaperRun(arm, _data(config), seed) for seed in seeds for arm in arms]
    rows = rows_of(number, config)
    tasks = [task for task in tasks_of(config) if task in rows[0].printed]
    return [
        run_of_cell(row, seed, task, config) for seed in seeds for row in rows for task in tasks
    ]


def runs_of_figure(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """The runs of a figure, by seed: 2 token entropies, 3 rewards, 4 training time."""
    arms = ("weft",) if number == 2 else ("sft", "weft")
    return [
        PaperRun(arm, _data(config), seed, after_rl=number == 3, timed=number == 4)
        for seed in seeds
        for arm in arms
    ]
