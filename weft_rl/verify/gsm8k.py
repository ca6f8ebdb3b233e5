"""Score on GSM8K beside published numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft_rl.config.load import load_run_config
from weft_rl.config.schema import RunConfig
from weft_rl.data.records import Record
from weft_rl.data.tasks import held_out_records
from weft_rl.evaluation.generate import prompt_lengths, sample_completions, summarize
from weft_rl.evaluation.settings import PUBLISHED_RECORDS, Settings, evaluation_settings
from weft_rl.models.memory import check_length
from weft_rl.sampler.progress import progress_bar
from weft_rl.verify.checkpoint import Found
from weft_rl.verify.report import Report


class Published(NamedTuple):
    """A published score and its settings; None: not stated."""

    score: float
    source: str
    gen_length: int | None = None
    block_length: int | None = None
    steps: int | None = None
    prompt: str | None = None


_D1 = "d1's"
# Scores in percent by Hub id.
PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "GSAI-ML/LLaDA-8B-Instruct": (
        Published(76.7, "WeFT, Table 1", 256, 32, 128, _D1),
        Published(78.6, "LLaDA, EVAL.md", 256, 8, 256, "LLaDA's"),
    ),
    # 4.7 points above LLaDA-8B-Instruct's 78.6
    "GSAI-ML/LLaDA-1.5": (Published(83.3, "LLaDA 1.5, arXiv 2505.19223"),),
    "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1": (
        Published(29.3, "dllm, Hub card", None, 256, None, "dllm's, enable_thinking=False"),
    ),
    "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1": (
        Published(46.3, "dllm, Hub card", None, 32, None, "dllm's, enable_thinking=False"),
    ),
}


def read_records(count: int, data: str | None) -> list[Record]:
    """Return the first `count` test problems. Raises UserError if they cannot be read."""
    settings = evaluation_settings(_options(count))
    return held_out_records("gsm8k", count, data or settings.data)


def _options(count: int) -> RunConfig:
    words = ["preset=llada_8b", "task=gsm8k", f"eval.num_records={count}"]
    return load_run_config(words, command="weft_rl.verify")


def score(
    report: Report,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    found: Found,
    records: Sequence[Record],
    data: str | None,
    seed: int,
) -> None:
    """Report the score under the WeFT paper's settings, and where published ones differ."""
    options = _options(len(records))
    settings = evaluation_settings(options)
    lengths = prompt_lengths(tokenizer, records, settings)
    fix, key = "the model is too small for GSM8K; use gsm8k=0", f"gsm8k={len(records)}"
    check_length(model.config, lengths, settings.sampler.gen_length, key, fix)
    with progress_bar("GSM8K", log=True) as on_step:
        parts = sample_completions(
            model,
            tokenizer,
            records,
            settings,
            batch_size=options.eval.batch_size,
            seed=seed,
            on_step=on_step,
        )
        scores = [each.scores for part in parts for each in part]
    entry = summarize(scores)
    low, high = entry["ci95"]
    total = PUBLISHED_RECORDS["gsm8k"]
    report.fact("score", f"{entry['score']:.1f}% [{low:.1f}, {high:.1f}], 95% interval")
    place = data or f"the Hub's {total:,} test problems"
    report.fact("problems", f"the first {len(records)} of {place}")
    report.fact("settings", _settings(settings))
    name = next((each for each in PUBLISHED if _is_named(found, each)), None)
    for each in PUBLISHED.get(name or "", ()):
        report.fact("published", f"{each.score:.1f}%, {each.source}; {differences(each, settings)}")
    if name is None:
        report.fact("published", "no score known for this checkpoint")


def _settings(settings: Settings) -> str:
    sampler = settings.sampler
    lengths = f"gen_length {sampler.gen_length}, block_length {sampler.block_length}"
    return f"{lengths}, steps {sampler.steps}, greedy, zero-shot, {_D1} evaluation prompt"


def _is_named(found: Found, hub_id: str) -> bool:
    """Whether the place is the Hub id or a folder with its name."""
    return hub_id.rpartition("/")[2] == found.place.rstrip("/").rpartition("/")[2]


def differences(published: Published, settings: Settings) -> str:
    """Name the settings of a published score that differ, and those that it does not state."""
    sampler = settings.sampler
    own = {
        "gen_length": sampler.gen_length,
        "block_length": sampler.block_length,
        "steps": sampler.steps,
        "prompt": _D1,
    }
    theirs = published._asdict()
    differing = [f"{name} {theirs[name]}" for name in own if theirs[name] not in (None, own[name])]
    unstated = [name for name in own if theirs[name] is None]
    texts = ["with " + ", ".join(differing)] if differing else []
    texts += ["not stated: " + ", ".join(unstated)] if unstated else []
    return "; ".join(texts) or "the same settings"
