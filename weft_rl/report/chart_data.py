"""Data for the report's script: curves, token entropies, denoising replays."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, parsing
from weft_rl.plot.figures import Line
from weft_rl.runs.folder import DENOISING_REPLAY, ENTROPY_HEATMAP, read_json
from weft_rl.stats import t_critical

# Points per curve: more slow the page down without visible gain.
MAX_POINTS = 1000
_OLD_HEATMAP = "token_heat-{stage}.json"
logger = logging.getLogger(__name__)


def chart(title: str, lines: Mapping[str, Sequence[Line]]) -> dict[str, Any]:
    """Return a metric's curves by label, at the steps that all runs of a label share.

    Omits labels without runs. Averages neighboring points above MAX_POINTS."""
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
                    "t": t_critical(len(curves) - 1) if len(curves) > 1 else 0,
                }
            )
    return {"title": title, "smoothing": SMOOTHING, "lines": drawn}


def _means(values: Sequence[float], size: int) -> list[float]:
    """Average consecutive groups of `size` values; the last group may be smaller."""
    parts = (values[i : i + size] for i in range(0, len(values), size))
    return [sum(part) / len(part) for part in parts]


def heatmaps(run: Path, stages: Sequence[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """Return the token entropies of cold-start responses, by stage.

    Each token has text, entropy (nats), beta (masking rate), ratio (beta over its mean) and
    mask_probability at t = 1/2."""
    return _by_stage(run, stages, (ENTROPY_HEATMAP, _OLD_HEATMAP), _heatmap)


def _heatmap(example: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = _columns(example, "entropy", "beta", "ratio")
    if any(value < 0 for value in columns[-1]):
        raise ValueError("a ratio is below 0")
    return [
        {
            "text": text,
            "entropy": f"{entropy:.3f}",
            "beta": f"{beta:.3f}",
            "ratio": ratio,
            "mask_probability": f"{1 - 0.5**ratio:.3f}",
        }
        for text, entropy, beta, ratio in zip(*columns, strict=True)
    ]


def replays(run: Path, stages: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the denoising replays of evaluations, by stage."""
    return _by_stage(run, stages, (DENOISING_REPLAY,), _replay)


def _replay(example: Mapping[str, Any]) -> dict[str, Any]:
    tokens, opened, confidences = _columns(example, "opened", "confidences")
    if not len(tokens) == len(opened) == len(confidences) or not is_number(example["steps"]):
        raise ValueError("tokens and steps do not match")
    prompt, steps = str(example["prompt"]), example["steps"]
    columns = {"tokens": tokens, "opened": opened, "confidences": confidences}
    return {"prompt": prompt, **columns, "steps": steps}


def _columns(example: Mapping[str, Any], *names: str) -> list[list[Any]]:
    """Return the tokens of an example, then the named numbers per token."""
    numbers = [example[name] for name in names]
    if not all(is_number(value) for column in numbers for value in column):
        raise TypeError(f"{', '.join(names)}: not all are numbers")
    return [[str(token) for token in example["tokens"]], *numbers]


def _by_stage(
    run: Path,
    stages: Sequence[str],
    names: Sequence[str],
    parse: Callable[[Mapping[str, Any]], Any],
) -> dict[str, list[Any]]:
    """Parse each stage's file, the first of `names` that exists; skip truncated files."""
    found: dict[str, list[Any]] = {}
    for stage in stages:
        paths = [run / name.format(stage=stage) for name in names]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            continue
        try:
            examples = read_json(path, {})["examples"]
        except (UserError, KeyError) as error:
            logger.warning("%s: left out (%s)", path, error)
            continue
        with parsing(path):
            parsed = [parse(example) for example in examples]
        if parsed:
            found[stage] = parsed
    return found
