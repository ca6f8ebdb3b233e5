"""Which reward functions train a task, with which weights, and which scores it is judged by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from weft_rl.rewards import countdown, format, gsm8k, math500, sudoku
from weft_rl.rewards.d1_scorer import training as strict_training

Reward = Callable[..., float]
Preset = Literal["plain", "d1", "d1_strict"]


@dataclass(frozen=True)
class Term:
    """A summand of the training reward: weight times a function with values in [0, 1]."""

    reward: Reward
    weight: float = 1.0
    bounded: bool = True  # False for d1's own values, of which one may be negative


_CORRECT: dict[str, dict[str, Term]] = {
    "sudoku": {"cell_accuracy": Term(sudoku.reward)},
    "countdown": {"countdown": Term(countdown.reward)},
    "gsm8k": {"correct": Term(gsm8k.reward)},
    "math500": {"correct": Term(math500.reward)},
}

# d1's sums: 2 for a right answer and 2 for its form; in Sudoku and Countdown nothing but the task's
# own reward. Source: dllm-reasoning/d1, diffu-grpo/reward_func.py, as described by its behaviour.
_D1: dict[str, dict[str, Term]] = {
    "gsm8k": {
        "correct": Term(gsm8k.exact, 2.0),
        "integer": Term(format.integer, 0.5),
        "strict_format": Term(format.strict, 0.5),
        "soft_format": Term(format.soft, 0.5),
        "tags": Term(format.tags, 0.5),
    },
    "math500": {"correct": Term(math500.exact, 2.0), "boxed_answer": Term(format.boxed_answer)},
}


def _own(reward: Reward) -> Term:
    return Term(reward, bounded=False)


# d1's very values, oddities included; under the names of `d1`, so that curves can be laid side by
# side.
_D1_STRICT: dict[str, dict[str, Term]] = {
    "sudoku": {"cell_accuracy": _own(strict_training.sudoku)},
    "countdown": {"countdown": _own(strict_training.countdown)},
    "gsm8k": {
        "correct": _own(strict_training.gsm8k_correct),
        "integer": _own(strict_training.integer),
        "strict_format": _own(strict_training.strict_format),
        "soft_format": _own(strict_training.soft_format),
        "tags": _own(strict_training.tags),
    },
    "math500": {
        "correct": _own(strict_training.math500_correct),
        "boxed_answer": _own(strict_training.boxed_answer),
    },
}
_PRESETS: dict[Preset, Mapping[str, dict[str, Term]]] = {
    "plain": _CORRECT,
    "d1": _D1,
    "d1_strict": _D1_STRICT,
}

# Reported by an evaluation; the first one is the task's score.
EVALUATION: dict[str, Mapping[str, Reward]] = {
    "sudoku": {
        "cell_accuracy": sudoku.cell_accuracy,
        "exact": sudoku.exact,
        "valid": sudoku.valid,
    },
    "countdown": {"exact": countdown.exact},
    "gsm8k": {"exact": gsm8k.exact},
    "math500": {"exact": math500.exact},
}

# Compare by value in other processes: called twice for a batch, first to hear what they ask for.
COMPARING: frozenset[Reward] = frozenset({math500.exact, math500.reward})


def training(task: str, preset: Preset = "plain") -> Mapping[str, Term]:
    """The terms of a task's training reward, by the name under which they are logged.

    plain: being right, with weight 1; d1: what d1 means to reward, as it weights it; d1_strict:
    d1's own values. Other tasks have the plain ones only. Raises KeyError for an unknown task.
    """
    return _PRESETS[preset].get(task, _CORRECT[task])


def add_task(name: str, correct: Mapping[str, Reward], scores: Mapping[str, Reward]) -> None:
    """Make a task's rewards known: those that train it, each with weight 1, and its scores.

    Raises ValueError when either is empty."""
    if not correct or not scores:
        raise ValueError(f"task {name} needs a training reward and an evaluation score")
    _CORRECT[name] = {key: Term(reward) for key, reward in correct.items()}
    EVALUATION[name] = scores
