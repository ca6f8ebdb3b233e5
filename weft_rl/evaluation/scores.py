"""Scores of completions; user functions may return or raise anything."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft_rl.errors import UserError
from weft_rl.rewards.math500 import judge_ahead, judging
from weft_rl.rewards.registry import COMPARING, REWARDS, Reward
from weft_rl.stats import Interval

ROUNDING = 1e-6  # rounding error of a sum of shares, also in float32
_QUOTED = 80  # characters of a value quoted in a message


@dataclass(frozen=True)
class Scored:
    """Scores of a completion by name, and whether a comparison timed out."""

    scores: dict[str, float]
    undecided: bool = False


def score_completions(
    task: str, texts: Sequence[str], fields: Sequence[Mapping[str, Any]]
) -> list[Scored]:
    """Return each completion's scores; fields: the records' columns.

    Raises UserError at the first score that raises or is outside [0, 1]."""
    functions, rows = REWARDS[task].evaluation, list(zip(texts, fields, strict=True))
    results = []
    with judging(len(texts)) as batch:
        comparing = COMPARING.intersection(functions.values())
        judge_ahead(batch, lambda: [f(text, **record) for f in comparing for text, record in rows])
        for text, record in rows:
            before = batch.undecided
            scores = {name: score(task, name, f, text, record) for name, f in functions.items()}
            results.append(Scored(scores, batch.undecided > before))
    return results


def score(task: str, name: str, function: Reward, text: str, fields: Mapping[str, Any]) -> float:
    """Return one score. Raises UserError unless it is a number in [0, 1]."""
    try:
        value = function(text, **fields)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"task={task}: evaluation score {name} raises {type(error).__name__} ({error}) in "
            f"{frame.filename}:{frame.lineno}; it must give a number in [0, 1] for every completion"
        ) from error
    number = as_number(value)
    if number is None or not -ROUNDING <= number <= 1 + ROUNDING:
        raise UserError(
            f"task={task}: evaluation score {name} is {shown(value)}; it must be a number in [0, 1]"
        )
    return min(max(number, 0.0), 1.0)


def percent(share: float) -> float:
    """Return a share in percent, as reports and result files have it."""
    return round(100 * share, 2) + 0.0  # avoids -0.0


def percent_bounds(interval: Interval) -> list[float]:
    """Return the bounds of an interval in percent."""
    return [percent(interval.low), percent(interval.high)]


def as_number(value: Any) -> float | None:
    """Return a Python, numpy or torch number as a float; None for anything else, including text."""
    if isinstance(value, str | bytes | bytearray):
        return None
    try:
        return float(value)
    except Exception:  # noqa: BLE001 - a user's value may raise anything
        return None


def shown(value: Any, length: int = _QUOTED) -> str:
    """Return the beginning of a value's repr, on one line."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - ints of over 4300 digits refuse, and a user's value may
        text = f"a value of type {type(value).__name__}"
    return " ".join(text.split())[:length]
