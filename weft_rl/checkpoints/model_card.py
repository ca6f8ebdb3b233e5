"""Model cards: README.md with metadata, training, results, usage and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from weft_rl.checkpoints.gguf import CACHED, SMOLLM2, is_gguf, smollm2_in_cache
from weft_rl.checkpoints.lora_merge import ADAPTER, base_of
from weft_rl.config.fields import shown
from weft_rl.families import AUTOREGRESSIVE, FAMILIES
from weft_rl.io.safe_files import read_text

CARD = "README.md"
_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.j2"
_TAGS = ("weft-rl", "masked-diffusion", "diffusion-language-model")
_LICENSES = {
    repo: family.license
    for family in FAMILIES
    for repo in (*family.published.values(), *family.autoregressive.values())
}
# Of every model; ModelFacts.limits adds those of one.
_LIMITS = (
    "Safety, bias and tasks other than those above were not evaluated.",
    "transformers' `generate` cannot sample from a masked diffusion model; use weft_rl's.",
)


class Stage(NamedTuple):
    """A training stage: its label and the options that matter."""

    label: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class Score:
    """A held-out score with its 95% interval, if there is one."""

    model: str  # label of the stage or baseline
    task: str
    metric: str
    value: float
    interval: Sequence[float] | None = None
    n: int | None = None
    percent: bool = True
    final: bool = False  # of the published weights

    @property
    def cell(self) -> str:
        """Value and interval in a table."""
        digits = 1 if self.percent else 3
        numbers = [f"{number:.{digits}f}" for number in (self.value, *(self.interval or ()))]
        interval = f" [{', '.join(numbers[1:])}]" if self.interval else ""
        return f"{numbers[0]}{interval}"


@dataclass(frozen=True)
class ModelFacts:
    """Content of a model card."""

    repo: str  # owner/name
    base: str  # description of the initial model
    base_id: str | None = None  # its Hub id
    adapter: bool = False
    stages: Sequence[Stage] = ()
    data: Sequence[str] = ()  # sentences on the training data
    datasets: Sequence[str] = ()  # their Hub ids
    scores: Sequence[Score] = ()
    evaluation: str = ""  # how the scores were measured
    sampler: Mapping[str, object] = field(
        default_factory=lambda: {"gen_length": 256, "block_length": 32, "steps": 128}
    )
    limits: Sequence[str] = ()
    versions: str = ""
    tags: Sequence[str] = ()


def make_card(facts: ModelFacts) -> ModelCard:
    """Return the model card; its metadata lists the scores of the published weights."""
    name = facts.repo.rpartition("/")[2]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=score.task,
            dataset_name=f"{score.task}, held out",
            metric_type=score.metric,
            metric_value=score.value,
            metric_args={"ci95": [*(score.interval or ())], "n": score.n},
        )
        for score in facts.scores
        if score.final
    ]
    data = ModelCardData(
        library_name="weft-rl",
        pipeline_tag="text-generation",
        license=_LICENSES.get(facts.base_id or ""),
        base_model=facts.base_id,
        base_model_relation=("adapter" if facts.adapter else "finetune") if facts.base_id else None,
        tags=[*_TAGS, *(["lora"] if facts.adapter else []), *facts.tags],
        datasets=[*facts.datasets] or None,
        model_name=name,
        eval_results=results or None,
    )
    trained = ", then ".join(stage.label for stage in facts.stages)
    kind = "LoRA adapter of a masked diffusion" if facts.adapter else "Masked diffusion"
    summary = f"{kind} language model: {facts.base}{trained and f', after {trained}'}."
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=name,
        repo=facts.repo,
        summary=summary,
        stages=[(stage.label, _options(stage.options)) for stage in facts.stages],
        data=facts.data,
        versions=facts.versions,
        scores=facts.scores,
        evaluation=facts.evaluation,
        sampler=", ".join(f"{key}={value!r}" for key, value in facts.sampler.items()),
        limits=[*facts.limits, *_LIMITS],
    )


def folder_facts(folder: Path, repo: str, *, adapter: bool) -> ModelFacts:
    """Return what a model folder without a run tells. Raises UserError if it is unreadable."""
    base = base_of(str(folder)) if (folder / ADAPTER).exists() else None
    if base is None:
        return ModelFacts(repo, "weights of unrecorded training")
    return ModelFacts(repo, *describe_base(base), adapter)


def describe_base(base: str) -> tuple[str, str | None]:
    """Return the description and Hub id of an initial model, a folder or a Hub id."""
    name = Path(base).name
    if name == smollm2_in_cache().name:
        repo = AUTOREGRESSIVE[SMOLLM2]
        return f"{repo}, its weights dequantized from 4 bits", repo
    if name.startswith(CACHED) or is_gguf(base):
        return f"the local model {name}, its weights dequantized from a GGUF file", None
    if Path(base).exists() or base.count("/") != 1:
        return f"the local model {name}", None
    return base, base


def is_written(card: Path) -> bool:
    """Return whether a model card exists and is not PEFT's unfilled template."""
    return card.exists() and "[More Information Needed]" not in read_text(card)


def _options(options: Mapping[str, object]) -> str:
    cells = [f"{key}={shown(value)}" for key, value in options.items() if value is not None]
    return ", ".join(cells).replace("|", "\\|")
