"""What the reports' script draws: curves, entropies of a response, a denoising step by step."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.plot.figures import Line
from weft_rl.runs.folder import DENOISING_REPLAY, ENTROPY_HEATMAP, read_json
from weft_rl.stats import t95

# Points of a curve that a page holds: more are no sharper, and slow.
MAX_POINTS = 1000
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeatToken:
    """A token of a response: entropy in nats, rate beta, and beta over its mean, the exponent."""

    text: str
    entropy: str
    beta: str
    ratio: float

    @property
    def at_half(self) -> float:
        """Its masking probability at t = 1/2: what the still picture shows."""
        return float(1 - 0.5**self.ratio)


def chart(title: str, lines: Mapping[str, Sequence[Line]]) -> dict[str, Any]:
    """The curves of one metric by label, each the runs behind one line; without runs, left out.

    Runs are cut to the steps that all of a line's have. More than MAX_POINTS are drawn as means of
    neighbours, whose moving average is nearly that of the points."""
    drawn = []
    for label, runs in lines.items():
        curves = [dict(zip(run.steps, run.values, strict=True)) for run in runs]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        if steps:
            size = -(-len(steps) // MAX_POINTS)
            drawn.append(
                {
                    "label": label,
                    "steps": steps if size == 1 else [round(s) for s in _means(steps, size)],
                    "runs": [
                        [float(f"{m:.5g}") for m in _means([run[step] for step in steps], size)]
                        for run in curves
                    ],
                    "t": t95(len(curves) - 1) if len(curves) > 1 else 0,
                }
            )
    return {"title": title, "smoothing": SMOOTHING, "lines": drawn}


def _means(values: Sequence[float], size: int) -> list[float]:
    """The means of each `size` neighbours; the last may be of fewer."""
    parts = (values[i : i + size] for i in range(0, len(values), size))
    return [sum(part) / len(part) for part in parts]


def heat(run: Path, stages: Sequence[str]) -> dict[str, list[list[HeatToken]]]:
    """The responses whose entropies a cold start has written, by stage."""
    found = {}
    for stage in stages:
        path = run / ENTROPY_HEATMAP.format(stage=stage)
        with parsing(path):
            examples = [_heat_tokens(example) for example in _examples(path)]
        if examples:
            found[stage] = examples
    return found


def _heat_tokens(example: Mapping[str, Any]) -> list[HeatToken]:
    columns = _columns(example, "entropy", "beta", "ratio")
    if any(value < 0 for value in columns[-1]):
        raise ValueError("a ratio is below 0")
    return [
        HeatToken(text, f"{entropy:.3f}", f"{beta:.3f}", ratio)
        for text, entropy, beta, ratio in zip(*columns, strict=True)
    ]


def _columns(example: Mapping[str, Any], *names: str) -> list[list[Any]]:
    """The tokens of an example, and its numbers for each of them."""
    numbers = [example[name] for name in names]
    if not all(is_number(value) for column in numbers for value in column):
        raise TypeError(f"{', '.join(names)}: holds no number")
    return [[str(token) for token in example["tokens"]], *numbers]


def playbacks(run: Path, stages: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The denoisings that an evaluation has written, by stage: prompt, tokens, opened, steps."""
    found = {}
    for stage in stages:
        path = run / DENOISING_REPLAY.format(stage=stage)
        with parsing(path):
            examples = [_playback(example) for example in _examples(path)]
        if examples:
            found[stage] = examples
    return found


def _playback(example: Mapping[str, Any]) -> dict[str, Any]:
    tokens, opened, confidences = _columns(example, "opened", "confidences")
    if not len(tokens) == len(opened) == len(confidences) or not is_number(example["steps"]):
        raise ValueError("tokens and steps do not fit")
    prompt, steps = str(example["prompt"]), example["steps"]
    lists = {"tokens": tokens, "opened": opened, "confidences": confidences}
    return {"prompt": prompt, **lists, "steps": steps}


def _examples(path: Path) -> list[dict[str, Any]]:
    """A file's examples; none for a file that is not there, and with a warning for a torn one."""
    try:
        return read_json(path, {})["examples"] if path.exists() else []
    except (UserError, KeyError) as error:
        logger.warning("%s: left out (%s)", path, error)
        return []
