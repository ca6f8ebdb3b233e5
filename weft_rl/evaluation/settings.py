"""Evaluation settings and record counts; without torch, because plans use them too."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import RunConfig
from weft_rl.data.prompts import PromptFormat, PromptStyle

# The paper's evaluation: length per task, blocks of 32, two tokens per step, greedy. Source: WeFT,
# Appendix B; prompts, prefilled tag and data as in d1's evaluation.
PAPER_LENGTH = {"sudoku": 512, "countdown": 512, "gsm8k": 256, "math500": 256}
_PAPER_BLOCK = 32
# Number of Sudoku and Countdown records in d1; gives an interval of about +-6 points.
_NUM_RECORDS = 256
# Records of the published test sets, because a plan reads no files and no Hub data.
PUBLISHED_RECORDS = {"sudoku": 500, "countdown": 256, "gsm8k": 1319, "math500": 500}
_D1_RECORDS = 256


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation. Resuming requires equal settings."""

    sampler: SamplerConfig
    style: PromptStyle
    data: str | None  # see held_out_records
    num_records: int | None  # None: all
    prompt_template: str | None = None
    system: str | None = None

    @property
    def wording(self) -> PromptFormat:
        """Wording of the prompts."""
        return PromptFormat(self.style, self.prompt_template, self.system)


def evaluation_settings(config: RunConfig) -> Settings:
    """Return the settings for eval.preset and eval.gen_length.

    preset "paper": the paper's lengths (256 for other tasks), and all records unless
    eval.num_records is set. Raises UserError for a length that the sampler does not support."""
    options, sampler = config.eval, config.sampler
    if options.preset == "paper":
        length = options.gen_length or PAPER_LENGTH.get(config.task, 256)
        sampler = SamplerConfig(length, _PAPER_BLOCK, length // 2)
        data = options.data or ("d1" if config.task == "sudoku" else "published")
        return Settings(sampler, "d1_eval", data, options.num_records)
    if options.gen_length is not None:
        steps = max(1, options.gen_length * sampler.steps // sampler.gen_length)
        sampler = replace(sampler, gen_length=options.gen_length, steps=steps)
    count = options.num_records or _NUM_RECORDS
    return Settings(
        sampler, config.prompt_style, options.data, count, config.prompt_template, config.system
    )


def is_evaluated(config: RunConfig, evaluated: Mapping[str, Any], stage: str) -> bool:
    """Return whether eval.json has the stage's scores for these settings; missing ones match."""
    entry = evaluated.get(stage, {}).get(config.task)
    if entry is None:
        return False
    settings = asdict(evaluation_settings(config))
    saved = entry.get("settings", {})
    earlier = settings | {key: value for key, value in saved.items() if key in settings}
    earlier["sampler"] = settings["sampler"] | earlier["sampler"]
    return earlier == settings and entry.get("seed", config.seed) == config.seed


def most_records(task: str, settings: Settings) -> int | None:
    """Return the maximum number of evaluated records; None if it depends on a data file."""
    published = PUBLISHED_RECORDS.get(task)
    available = {"d1": _D1_RECORDS, "published": published}.get(settings.data or "")
    known = [count for count in (available, settings.num_records) if count is not None]
    return min(known, default=None)
