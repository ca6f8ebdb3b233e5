"""Self-contained HTML pages from the templates, and the data of their script."""

import logging
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from weft_rl.cli import writing
from weft_rl.ema import SMOOTHING
from weft_rl.errors import UserError
from weft_rl.io.safe_files import is_number, parsing, read_text
from weft_rl.io.terminal import escape, visible
from weft_rl.plot.curves import on_common_steps
from weft_rl.plot.figures import Line
from weft_rl.runs.atomic_io import write_text
from weft_rl.runs.folder import CONFIG, DENOISING_REPLAY, ENTROPY_HEATMAP, read_json
from weft_rl.stats import t_critical

# Points per curve: more slow the page down without visible gain.
_MAX_POINTS = 1000
# File names by subject; the second one is of earlier versions.
_HEATMAPS = (ENTROPY_HEATMAP, "token_heat-{stage}.json")
logger = logging.getLogger(__name__)


def write_page(
    template: str, folder: Path, out: Path, settings: Mapping[str, Any], command: str, **values: Any
) -> Path:
    """Render templates/<template> into `out` atomically and return its path.

    settings: content of config.yaml of `folder`. Values are escaped unless they are markup. Raises
    jinja2.UndefinedError for a missing value."""
    environment = Environment(
        loader=PackageLoader("weft_rl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (Path(__file__).parent / "templates" / "interactive.js").read_text(encoding="utf-8")
    # the content security policy allows only this script: completions are untrusted
    digest = b64encode(sha256(script.encode()).digest()).decode()
    with parsing(folder / CONFIG):
        versions = dict(settings.get("versions", {}))
    page = environment.get_template(template).render(
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        smoothing=SMOOTHING,
        max_points=_MAX_POINTS,
        name=folder.resolve().name,
        config=read_text(folder / CONFIG) if settings else "",
        versions=versions,
        revision=settings.get("revision", "unknown"),
        command=command,
        **values,
    )
    with writing(out):
        write_text(out, escape(page))  # lone surrogates cannot be encoded
    return out


def chart(title: str, lines: Mapping[str, Sequence[Line]]) -> dict[str, Any]:
    """Return a metric's curves by label, at the steps that all runs of a label share.

    Omits labels without common steps. Averages neighboring points above _MAX_POINTS."""
    drawn = []
    for label, runs in lines.items():
        steps, values = on_common_steps(runs)
        size = -(-len(steps) // _MAX_POINTS)
        if size > 1:
            steps = [round(step) for step in _means(np.array(steps), size)]
            values = _means(values, size)
        if steps:
            rounded = [[float(f"{value:.5g}") for value in run] for run in values]
            t = t_critical(len(runs) - 1) if len(runs) > 1 else 0
            drawn.append({"label": label, "steps": steps, "runs": rounded, "t": t})
    return {"title": title, "smoothing": SMOOTHING, "lines": drawn}


def _means(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Average consecutive groups of `size` values (..., N); the last group may be smaller."""
    starts = range(0, values.shape[-1], size)
    return np.stack([values[..., i : i + size].mean(axis=-1) for i in starts], axis=-1)


def heatmaps(run: Path, stages: Sequence[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """Return the tokens of cold-start responses, by stage, with their entropies in nats.

    beta: masking rate; ratio: beta over its mean; mask_probability: at t = 1/2."""
    return _by_stage(run, stages, _HEATMAPS, _heatmap)


def _heatmap(example: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = (example[name] for name in ("tokens", "entropy", "beta", "ratio"))
    return [
        {
            "text": shape(str(text)),
            "name": shape(str(text)).replace("\n", ""),
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
    tokens, opened, confidences = (example[key] for key in ("tokens", "opened", "confidences"))
    if not all(map(is_number, (*opened, *confidences, example["steps"]))):
        raise TypeError("a step or a confidence is not a number")
    if not len(tokens) == len(opened) == len(confidences):
        raise ValueError("tokens and steps do not match")
    text = {"prompt": str(example["prompt"]), "tokens": [shape(str(token)) for token in tokens]}
    return text | {"opened": opened, "confidences": confidences, "steps": example["steps"]}


def shape(text: str) -> str:
    """Return a token's text with a visible shape for all its characters; line breaks stay."""
    return "↵\n".join(map(visible, text.split("\n")))


def _by_stage(
    run: Path,
    stages: Sequence[str],
    names: Sequence[str],
    parse: Callable[[Mapping[str, Any]], Any],
) -> dict[str, list[Any]]:
    """Parse each stage's file, the first of `names` that exists; skip damaged files."""
    by_stage: dict[str, list[Any]] = {}
    for stage in stages:
        paths = [path for name in names if (path := run / name.format(stage=stage)).exists()]
        try:
            for path in paths[:1]:
                with parsing(path):
                    by_stage[stage] = [*map(parse, read_json(path, {})["examples"])]
        except UserError as error:
            logger.warning("left out: %s", error)
    return {stage: examples for stage, examples in by_stage.items() if examples}
