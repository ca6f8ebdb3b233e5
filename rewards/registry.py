"""Which reward functions train a task, and which scores an evaluation reports."""

from collections.abc import Callable, Mapping

from rewards import countdown, sudoku

Reward = Callable[..., float]

# Summed with weight 1 during training; logged as rewards/<name>.
TRAINING: Mapping[str, Mapping[str, Reward]] = {
    "sudoku": {"cell_accuracy": sudoku.cell_accuracy},
    "countdown": {"countdown": countdown.reward},
}

# Reported by an evaluation; the first one is the task's score.
EVALUATION: Mapping[str, Mapping[str, Reward]] = {
    "sudoku": {"cell_accuracy": sudoku.cell_accuracy, "exact": sudoku.exact},
    "countdown": {"exact": countdown.exact},
}


def headline(task: str) -> Reward:
    """The correctness function behind a task's score. Raises KeyError for an unknown task."""
    return next(iter(EVALUATION[task].values()))
