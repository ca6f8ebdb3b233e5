"""The WeFT paper's numbers for LLaDA-8B-Instruct, in percent, and the runs that repeat them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import yaml

from weft_rl.config.load import load_run_config
from weft_rl.config.schema import TOY_MODELS, RunConfig
from weft_rl.runs.folder import FINISHED, read_json, read_results

TASKS = ("sudoku", "countdown", "gsm8k", "math500")
# The toy vocabulary covers the generated tasks only.
_GENERATED_TASKS = ("sudoku", "countdown")
# Cold-start data sets of Table 1: our name -> the paper's.
DATA_SETS = {"s1k": "s1K", "s1k-1.1": "s1K-1.1", "openr1-3k": "openr1-3k"}


@dataclass(frozen=True)
class Row:
    """A table row: cold start or "base", data set, RL or not, printed score by task."""

    label: str
    arm: str
    printed: dict[str, float] = field(hash=False)
    data: str = "s1k"
    after_rl: bool = False


def _row(label: str, arm: str, *scores: float, data: str = "s1k", after_rl: bool = False) -> Row:
    """Return a row with the scores of the first tasks of TASKS."""
    return Row(label, arm, dict(zip(TASKS, scores, strict=False)), data, after_rl)


_SFT = _row("SFT", "sft", 4.6, 23.8, 78.8, 32.6)
_WEFT = _row("WeFT", "weft", 7.8, 24.6, 78.0, 33.0)

SCORES: dict[int, tuple[str, list[Row]]] = {
    1: (
        "Cold starts on three data sets",
        [
            _row("base model", "base", 5.5, 16.0, 76.7, 32.4),
            _SFT,
            _WEFT,
            _row("SFT", "sft", 4.2, 21.5, 78.4, 30.8, data="s1k-1.1"),
            _row("WeFT", "weft", 6.8, 20.3, 78.1, 32.6, data="s1k-1.1"),
            _row("SFT", "sft", 6.3, 17.2, 77.3, 32.0, data="openr1-3k"),
            _row("WeFT", "weft", 6.9, 17.6, 77.5, 32.8, data="openr1-3k"),
        ],
    ),
    2: (
        "Sudoku before and after RL",
        [
            _row("base model", "base", 5.5),
            _row("SFT", "sft", 4.6),
            _row("WeFT", "weft", 7.8),
            _row("SFT + RL", "sft", 8.9, after_rl=True),
            _row("WeFT + RL", "weft", 13.3, after_rl=True),
        ],
    ),
    3: (
        "Rates from -log p instead of the entropy",
        [_SFT, _row("-log p", "nll", 3.0, 16.4, 75.4, 29.2), _WEFT],
    ),
    4: (
        "Weights of the loss instead of masking rates",
        [
            _row("Dream", "dream", 3.3, 21.1, 77.0, 30.0),
            _row("WeFT (SW)", "weft_sw", 5.3, 23.8, 75.9, 31.6),
            _WEFT,
        ],
    ),
}
# Table 5, gradient norm over training: maximum, median, mean.
GRADIENT_NORMS = {"weft_entropy": (646.1, 0.47, 2.02), "weft": (46.2, 0.43, 1.03)}
# Figure 4: training time of WeFT divided by that of SFT, 20 epochs on s1K, four H100s.
TIME_RATIO = 1.24


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

    def evaluated(self, path: Path) -> str:
        """The stage name of the scores in the run directory's eval.json."""
        if self == self.trained and self.arm != "base":
            return self.stage
        return "a2d" if "a2d" in read_results(path) else "base"

    def arguments(self, given: Sequence[str]) -> list[str]:
        """Return the pipeline arguments without out= and model=. `given` takes precedence."""
        only_evaluates = self.arm == "base" or self != self.trained
        stages = ["eval"] if only_evaluates else [self.arm, "rl"] if self.after_rl else [self.arm]
        # Table 5 needs every gradient norm
        default = ("eval.after_each", "false") if self.timed else ("cold_start.logging_steps", "1")
        options = dict([("data", self.data), default])
        options |= {key: value for key, _, value in (item.partition("=") for item in given)}
        # a checkpoint has no preset
        options.setdefault("preset", options.get("model", RunConfig.model))
        options |= {"stages": f"[{','.join(stages)}]", "seed": str(self.seed), "task": self.task}
        return [f"{key}={value}" for key, value in options.items()]

    def folder(self, given: Sequence[str]) -> str:
        """Return the name of the run directory, which ends in a digest of the options."""
        options = asdict(load_run_config(self.arguments(given), command="weft_rl.reproduce"))
        del options["trackers"]
        text = yaml.safe_dump(options, sort_keys=False)
        digest = blake2b(text.encode(), digest_size=4).hexdigest()
        marks = {"rl": self.after_rl, "timed": self.timed, self.data: self.data not in TOY_MODELS}
        marks |= {self.task: self != self.trained, f"seed{self.seed}": True, digest: True}
        return "-".join([self.arm, *(mark for mark, applies in marks.items() if applies)])

    def is_done(self, path: Path) -> bool:
        """Return whether the run directory has all data for tables and figures."""
        if self.timed:
            return self.stage in read_json(path / FINISHED, {})
        return self.task in read_results(path).get(self.evaluated(path), {})


def rows_of(number: int, config: RunConfig) -> list[Row]:
    """Return the rows of a score table; toy models have one data set only."""
    toy = config.model in TOY_MODELS
    return [row for row in SCORES[number][1] if not toy or row.data == Row.data]


def tasks_of(number: int, config: RunConfig) -> list[str]:
    """Return the tasks of a score table that the model's vocabulary covers."""
    tasks = _GENERATED_TASKS if config.model in TOY_MODELS else TASKS
    return [task for task in tasks if task in SCORES[number][1][0].printed]


def run_of_cell(row: Row, seed: int, task: str, config: RunConfig) -> PaperRun:
    """Return the run behind a cell of a score table."""
    data = config.model if config.model in TOY_MODELS else row.data
    return PaperRun(row.arm, data, seed, row.after_rl, task)


def runs_of_table(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """Return the runs of a table, by seed."""
    if number not in SCORES:
        return _main_runs(GRADIENT_NORMS, seeds, config)
    return [
        run_of_cell(row, seed, task, config)
        for seed in seeds
        for row in rows_of(number, config)
        for task in tasks_of(number, config)
    ]


def runs_of_figure(number: int, seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    """Return the runs of a figure by seed: 2 token entropies, 3 rewards, 4 training time."""
    runs = _main_runs(["weft"] if number == 2 else ["sft", "weft"], seeds, config)
    return [replace(run, after_rl=number == 3, timed=number == 4) for run in runs]


def _main_runs(arms: Iterable[str], seeds: Sequence[int], config: RunConfig) -> list[PaperRun]:
    data = config.model if config.model in TOY_MODELS else Row.data
    return [PaperRun(arm, data, seed) for seed in seeds for arm in arms]
