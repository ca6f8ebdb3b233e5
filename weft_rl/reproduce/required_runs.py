"""The runs that the paper's tables and figures are made of: which, how, and where they lie."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

import yaml

from weft_rl.config.load import load_run_config
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.reproduce.paper_numbers import DATA_SETS, SCORES, TASKS, Row
from weft_rl.runs.folder import FINISHED, read_json, read_results

# Those that are generated; the others' records come from a hub, and tiny has no words for them.
_GENERATED_TASKS = ("sudoku", "countdown")


@dataclass(frozen=True)
class PaperRun:
    """A run: a cold start or the base itself, on a data set, with RL after it or not.

    task: what it is evaluated on. Training is evaluated on the first of the paper's tasks; any
    other is a run of its own that starts from the trained one's checkpoint. timed: trained alone on
    the machine, and not evaluated."""

    arm: str
    data: str
    seed: int
    after_rl: bool = False
    task: str = TASKS[0]
    timed: bool = False

    @property
    def stage(self) -> str:
        """The stage whose checkpoint the unit is about."""
        return "rl" if self.after_rl else self.arm

    @property
    def trained(self) -> "PaperRun":
        """The run that has the checkpoint: this one for the first task."""
        return replace(self, task=TASKS[0])

    @property
    def evaluated(self) -> str:
        """The stage under which eval.json has the unit's scores."""
        return self.stage if self == self.trained else "base"

    def words(self, given: Sequence[str]) -> list[str]:
        """The pipeline's arguments, but for out and an evaluation's model.

        given: options for every run; they win over what is set for all units here."""
        only_evaluates = self.arm == "base" or self != self.trained
        stages = ["eval"] if only_evaluates else [self.arm, "rl"] if self.after_rl else [self.arm]
        words = {"data": self.data}
        if self.timed:
            words["eval.after_each"] = "false"
        else:
            words["cold_start.logging_steps"] = "1"  # Table 5 needs every step's norm
        for word in given:
            key, _, value = word.partition("=")
            words[key] = value
        # an evaluation's model is a folder, which has no preset of its own
        words.setdefault("preset", words.get("model", RunConfig.model))
        words |= {"stages": f"[{','.join(stages)}]", "seed": str(self.seed), "task": self.task}
        return [f"{key}={value}" for key, value in words.items()]

    def folder(self, given: Sequence[str]) -> str:
        """The run's folder: its name and a digest of its options, so that no other is taken up."""
        config = load_run_config(self.words(given), command="weft_rl.reproduce")
        # who else is told of its metrics changes none of them
        options = {key: value for key, value in asdict(config).items() if key != "trackers"}
        text = yaml.safe_dump(options, sort_keys=False)
        digest = blake2b(text.encode(), digest_size=4).hexdigest()
        marks = {"rl": self.after_rl, "timed": self.timed, self.data: self.data not in TOY_MODELS}
        marks[self.task] = self != self.trained
        parts = [self.arm, *(mark for mark, stands in marks.items() if stands)]
        return f"{'-'.join(parts)}-seed{self.seed}-{digest}"

    def is_done(self, path: Path) -> bool:
        """Whether its run folder has all that tables and figures read."""
        if self.timed:
            return self.stage in read_json(path / FINISHED, {})
        return self.task in read_results(path).get(self.evaluated, {})


def tasks_of(config: RunConfig) -> tuple[str, ...]:
    """The paper's tasks that the model can read."""
    return _GENERATED_TASKS if config.model in TOY_MODELS else TASKS


def rows_of(number: int, config: RunConfig) -> list[Row]:
    """The rows of a table of scores at this scale: a generated world has one data set."""
    first, own = next(iter(DATA_SETS)), config.model in TOY_MODELS
    return [row for row in SCORES[number][1] if not own or row.data == first]


def unit_of(row: Row, seed: int, task: str, config: RunConfig) -> PaperRun:
    """The run behind a cell of a table of scores."""
    data = data_of(config, row.data)
    return PaperRun(row.arm, data, seed, row.after_rl, task)


def data_of(config: RunConfig, printed: str = next(iter(DATA_SETS))) -> str:
    """The data set of the paper, or a generated world's own, which has the model's name."""
    return config.model if config.model in TOY_MODELS else printed


def units_of_table(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """The runs of a table, by seed."""
    if number not in SCORES:  # Table 5, gradient norms
        return [
            PaperRun(arm, data_of(config), s) for s in seeds for arm in ("weft_entropy", "weft")
        ]
    rows = rows_of(number, config)
    tasks = [task for task in tasks_of(config) if task in rows[0].printed]
    return [unit_of(row, seed, task, config) for seed in seeds for row in rows for task in tasks]


def units_of_figure(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """The runs of a figure, by seed."""
    data = data_of(config)
    if number == 2:
        return [PaperRun("weft", data, seed) for seed in seeds]
    arms = [(seed, arm) for seed in seeds for arm in ("sft", "weft")]
    if number == 3:
        return [PaperRun(arm, data, seed, after_rl=True) for seed, arm in arms]
    return [PaperRun(arm, data, seed, timed=True) for seed, arm in arms]
