"""How an evaluation samples, and how many held-out records it has; no torch, for plans as well."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import RunConfig
from weft_rl.data.prompts import PromptStyle

# The paper's evaluation: tokens generated per task, blocks of 32, two tokens a step, greedy.
# Source: WeFT, Appendix B; prompts, prefilled tag and data as in d1's evaluation.
PAPER_LENGTH = {"sudoku": 512, "countdown": 512, "gsm8k": 256, "math500": 256}
_PAPER_BLOCK = 32
# d1's number of Sudoku and Countdown records, and enough for an interval of 6 points either way.
_NUM_RECORDS = 256
# Records of the published test sets; a plan reads neither files nor the hub.
PUBLISHED_RECORDS = {"sudoku": 500, "countdown": 256, "gsm8k": 1319, "math500": 500}
_D1_RECORDS = 256


@dataclass(frozen=True)
class Settings:
    """How an evaluation is done: part of its result, and of what a resumed one must share."""

    sampler: SamplerConfig
    style: PromptStyle
    data: str | None  # as held_out_records takes it
    num_records: int | None  # None: all there are


def evaluation_settings(config: RunConfig) -> Settings:
    """The settings that eval.preset and eval.gen_length ask for.

    paper: the paper's lengths (256 for a task it has not), and all records unless eval.num_records
    says how many. Raises UserError when the sampler cannot have that length."""
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
    return Settings(sampler, config.prompt_style, options.data, count)


def is_evaluated(config: RunConfig, evaluated: Mapping[str, Any], stage: str) -> bool:
    """Whether eval.json's content has the stage's scores on the task, as the options have it.

    What an entry does not say, as one of another version may not, counts as the same."""
    entry = evaluated.get(stage, {}).get(config.task)
    if entry is None:
        return False
    now = asdict(evaluation_settings(config))
    saved = entry.get("settings", {})
    then = now | {key: value for key, value in saved.items() if key in now}
    then["sampler"] = now["sampler"] | then["sampler"]
    return then == now and entry.get("seed", config.seed) == config.seed


def most_records(task: str, settings: Settings) -> int | None:
    """Records that an evaluation has at most; None where only its data can tell."""
    published = PUBLISHED_RECORDS.get(task)
    there = {"d1": _D1_RECORDS, "published": published}.get(settings.data or "")
    known = [count for count in (there, settings.num_records) if count is not None]
    return min(known, default=None)
