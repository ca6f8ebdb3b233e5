"""Training rewards, evaluation scores and judge of each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from weft_rl.rewards import countdown, format, gsm8k, math500, sudoku
from weft_rl.rewards.d1_scorer import training as d1
from weft_rl.rewards.scoring import JUDGES, Judge

Reward = Callable[..., float]
Preset = Literal["plain", "d1", "d1_strict"]


@dataclass(frozen=True)
class Term:
    """A term of the training reward: weight times a function with values in [0, 1]."""

    reward: Reward
    weight: float = 1.0
    bounded: bool = True  # False for d1's values, some of which can be negative


@dataclass(frozen=True)
class TaskRewards:
    """Rewards of a task, keyed by logged name.

    training: correctness only. evaluation: reported scores, the main one first. presets: training
    rewards of other publications. judge: scores stored records."""

    training: Mapping[str, Term]
    evaluation: Mapping[str, Reward]
    presets: Mapping[Preset, Mapping[str, Term]] = field(default_factory=dict)
    judge: Judge | None = None


def _d1_strict(**rewards: Reward) -> dict[str, Term]:
    """d1's exact values under the names of preset `d1`, for comparing curves."""
    return {name: Term(reward, bounded=False) for name, reward in rewards.items()}


# d1 gives 2 for correctness and 2 for format; Sudoku and Countdown use the task reward alone.
# Source: dllm-reasoning/d1, diffu-grpo/reward_func.py, reimplemented from its behavior.
REWARDS: dict[str, TaskRewards] = {
    "sudoku": TaskRewards(
        training={"cell_accuracy": Term(sudoku.reward)},
        evaluation={
            "cell_accuracy": sudoku.cell_accuracy,
            "exact": sudoku.exact,
            "valid": sudoku.valid,
        },
        presets={"d1_strict": _d1_strict(cell_accuracy=d1.sudoku)},
        judge=JUDGES["sudoku"],
    ),
    "countdown": TaskRewards(
        training={"countdown": Term(countdown.reward)},
        evaluation={"exact": countdown.exact},
        presets={"d1_strict": _d1_strict(countdown=d1.countdown)},
        judge=JUDGES["countdown"],
    ),
    "gsm8k": TaskRewards(
        training={"correct": Term(gsm8k.reward)},
        evaluation={"exact": gsm8k.exact},
        presets={
            "d1": {
                "correct": Term(gsm8k.exact, 2.0),
                "integer": Term(format.integer, 0.5),
                "strict_format": Term(format.strict, 0.5),
                "soft_format": Term(format.soft, 0.5),
                "tags": Term(format.tags, 0.5),
            },
            "d1_strict": _d1_strict(
                correct=d1.gsm8k_correct,
                integer=d1.integer,
                strict_format=d1.strict_format,
                soft_format=d1.soft_format,
                tags=d1.tags,
            ),
        },
        judge=JUDGES["gsm8k"],
    ),
    "math500": TaskRewards(
        training={"correct": Term(math500.reward)},
        evaluation={"exact": math500.exact},
        presets={
            "d1": {"correct": Term(math500.exact, 2.0), "boxed_answer": Term(format.boxed_answer)},
            "d1_strict": _d1_strict(correct=d1.math500_correct, boxed_answer=d1.boxed_answer),
        },
        judge=JUDGES["math500"],
    ),
}
# Rewards that compare in worker processes, called twice per batch; see judge_ahead.
COMPARING: frozenset[Reward] = frozenset({math500.exact, math500.reward})


def training(task: str, preset: Preset = "plain") -> Mapping[str, Term]:
    """Return the terms of a task's training reward by name. Raises KeyError for an unknown task.

    plain: correctness (also the fallback). d1: the intent of d1's rewards, with its weights.
    d1_strict: d1's exact values."""
    rewards = REWARDS[task]
    return rewards.presets.get(preset, rewards.training)


def add_task(name: str, correct: Mapping[str, Reward], scores: Mapping[str, Reward]) -> None:
    """Register training rewards with weight 1, and scores. Raises ValueError if either is empty."""
    if not correct or not scores:
        raise ValueError(f"task {name} needs a training reward and an evaluation score")
    REWARDS[name] = TaskRewards({key: Term(f) for key, f in correct.items()}, scores)
