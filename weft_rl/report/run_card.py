"""Model card of a run's checkpoint, from config.yaml and eval.json of its runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from weft_rl.checkpoints.gguf import SMOLLM2, smollm2_in_cache
from weft_rl.checkpoints.hub import hub_id
from weft_rl.checkpoints.model_card import ModelFacts, Score, Stage, describe_base
from weft_rl.config.schema import GENERATED_DATA, TOY_MODELS
from weft_rl.data.sources import PUBLISHED as DATA_SETS
from weft_rl.data.sources import is_hub_id
from weft_rl.data.tasks import REGISTRY, hub_name
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.io.safe_files import parsing
from weft_rl.runs.folder import (
    CONFIG,
    EVAL,
    INITIAL,
    finished_stages,
    read_config,
    read_results,
    run_of,
)
from weft_rl.runs.renamed import flattened

# Options in the table of stages, without the stage's prefix.
_OPTIONS = {
    "base": ("hidden_size", "num_hidden_layers", "batch_size", "learning_rate", "seed"),
    "a2d": (
        *("max_length", "batch_size", "gradient_accumulation_steps", "learning_rate"),
        *("anneal_steps", "logit_shift", "seed"),
    ),
    "cold_start": (
        *("epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "weight_decay"),
        *("loss_norm", "exact_elbo", "t_sampling", "data.max_length", "lora.r", "lora.alpha"),
    ),
    "rl": (
        *("loss_type", "estimator", "num_prompts", "num_generations", "num_iterations"),
        *("learning_rate", "kl_coef", "loss.clip_coef", "rollout.temperature"),
        *("lora.r", "lora.alpha"),
    ),
}
_SAMPLER = ("gen_length", "block_length", "steps", "temperature")
_VERSIONS = ("weft_rl", "torch", "transformers", "trl", "peft")


class _Trained(NamedTuple):
    """A stage on the way to a checkpoint."""

    run: Path
    settings: Mapping[str, Any]  # config.yaml, flattened
    name: str
    checkpoint: Path

    @property
    def kind(self) -> str:
        return self.name if self.name in _OPTIONS else "cold_start"

    @property
    def label(self) -> str:
        if self.kind == "rl":
            loss, estimator = (self.settings.get(f"rl.{key}") for key in ("loss_type", "estimator"))
            return f"RL ({loss}, {estimator})"
        if self.name in RECIPES:
            return RECIPES[self.name].label
        return "adaptation to diffusion (A2D)" if self.kind == "a2d" else "pretraining"


def run_facts(checkpoint: Path, repo: str, *, adapter: bool) -> ModelFacts:
    """Return the facts of RUN/checkpoints/<stage>/step-N, with the runs that its run started from.

    Raises UserError for unreadable run files."""
    lineage = [*_lineage(checkpoint)]
    first, last = lineage[0], lineage[-1]
    with parsing(last.run / CONFIG):
        base, base_id = _base(first.settings["model"])
        lines, datasets = zip(*map(_data, lineage), strict=True)
        versions = (f"{name} {last.settings.get(f'versions.{name}')}" for name in _VERSIONS)
        stages = [Stage(each.label, _options(each)) for each in lineage]
    with parsing(last.run / EVAL):
        scores, settings = _scores(lineage)
        sampler = settings.get("sampler") or {
            key: last.settings.get(f"sampler.{key}") for key in _SAMPLER
        }
        sampler = {key: sampler[key] for key in _SAMPLER}
        evaluation = _evaluation(sampler, settings) if scores else ""
    limits = []
    if first.settings["model"] in TOY_MODELS:
        limits.append("A toy model: it knows the generated puzzles of its training only.")
    if scores:
        limits += [
            "The scores are of one training run: their intervals are over records, not seeds.",
            f"Completions were evaluated with at most {sampler['gen_length']} tokens.",
        ]
    return ModelFacts(
        repo,
        base,
        base_id,
        adapter,
        stages,
        lines,
        [name for name in dict.fromkeys(datasets) if name],
        scores,
        evaluation,
        sampler,
        limits,
        ", ".join(versions),
        [each.name for each in lineage if each.name != "base"],
    )


def _lineage(checkpoint: Path) -> Iterator[_Trained]:
    """The stages that led to a checkpoint, in order."""
    run = run_of(str(checkpoint))
    if run is None:
        raise ValueError(f"{checkpoint}: is no checkpoint of a run")
    settings, stage = dict(flattened(read_config(run))), checkpoint.resolve().parent.name
    before = str(settings.get("model"))
    if run_of(before) not in (None, run):
        yield from _lineage(Path(before))
    for name, place in finished_stages(run).items():
        if name == stage:
            break
        yield _Trained(run, settings, name, run / place)
    yield _Trained(run, settings, stage, checkpoint.resolve())


def _base(model: str) -> tuple[str, str | None]:
    """Description and Hub id of an initial model."""
    if model in TOY_MODELS:
        return "a toy LLaDA from random weights", None
    if model == SMOLLM2 and smollm2_in_cache().exists():  # preferred to the Hub's
        return describe_base(str(smollm2_in_cache()))
    return describe_base(hub_id(model))


def _options(stage: _Trained) -> dict[str, object]:
    settings, kind = stage.settings, stage.kind
    options: dict[str, object] = {"steps": int(stage.checkpoint.name.removeprefix("step-"))}
    options |= {key: settings.get(f"{kind}.{key}") for key in _OPTIONS[kind]}
    if not options.get("lora.r"):
        options = {key: value for key, value in options.items() if not key.startswith("lora.")}
    if kind == "rl":
        options |= {"task": _task(settings["task"]), "rewards": settings.get("rewards")}
    return {"seed": settings.get("seed")} | options


def _data(stage: _Trained) -> tuple[str, str | None]:
    """A sentence on the training data of a stage, and its Hub id."""
    settings = stage.settings
    if stage.kind == "base":
        return f"Pretraining: {settings['base.examples']} generated texts.", None
    if stage.kind == "a2d":
        source = str(settings["a2d.data"])
        known = source if is_hub_id(source) and not Path(source).exists() else None
        if source == "self":
            return "A2D: answers of the autoregressive model, and the cold start's records.", None
        return f"A2D: {_source(source, known)}.", known
    if stage.kind == "rl":
        task, data = settings["task"], settings.get("rl.rollout.data")
        known = hub_name(task, data) if data and task in REGISTRY else None
        source = _source(data, known) if data else "generated records"
        return f"RL: prompts of {_task(task)}, {source}.", known
    data = settings["data"]
    if data in GENERATED_DATA:
        return f"Cold start: {settings['cold_start.records']} generated reasoning traces.", None
    known = DATA_SETS[data].hub if data in DATA_SETS else data
    known = known if is_hub_id(known) and not Path(known).exists() else None
    return f"Cold start: reasoning traces, {_source(data, known)}.", known and known.split(":")[0]


def _source(data: str, hub: str | None) -> str:
    return f"from {hub} on the Hub" if hub else f"from the local file {Path(data).name}"


def _task(name: str) -> str:
    return Path(name).name  # a task of a file is its path


def _scores(lineage: list[_Trained]) -> tuple[list[Score], Mapping[str, Any]]:
    """Scores of the last run's stages and of baselines, and the settings of the last evaluation."""
    run, last = lineage[-1].run, lineage[-1]
    results, finished = read_results(run), finished_stages(run)
    labels = {each.name: each.label for each in lineage if each.run == run}
    if not {"base", "a2d"} & labels.keys():
        labels = {"base": INITIAL} | labels
    scores: list[Score] = []
    baselines: dict[tuple[str, str], Any] = {}
    settings: Mapping[str, Any] = {}
    for stage, label in labels.items():
        final = stage == last.name
        if final and run / finished.get(stage, "") != last.checkpoint:
            continue  # the scores are of another step
        for task, entry in results.get(stage, {}).items():
            scores += _entry(label, task, entry, final=final)
            if "score" in entry:
                for name, each in entry.get("baselines", {}).items():
                    baselines[task, name] = each
                settings = entry.get("settings", {})
    for (task, name), entry in baselines.items():
        scores += _entry(f"no model: {name}", task, entry)[:1]
    return scores, settings


def _entry(label: str, task: str, entry: Mapping[str, Any], final: bool = False) -> list[Score]:
    task = _task(task)
    if "mean" in entry:  # of a likelihood
        width = 1.96 * entry["se"]  # 95% of a normal distribution
        interval = (entry["mean"] - width, entry["mean"] + width)
        return [Score(label, "likelihood", task, entry["mean"], interval, entry["n"], False, final)]
    parts = {"score": entry} | {
        name: value for name, value in entry.items() if isinstance(value, dict) and "ci95" in value
    }
    return [
        Score(label, task, name, float(part["score"]), part["ci95"], entry["n"], True, final)
        for name, part in parts.items()
    ]


def _evaluation(sampler: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in sampler.items())
    data = settings.get("data")
    source = f"Records: {Path(data).name}. " if data else ""
    return f"Scores in percent, on held-out records. {source}Sampler: {options}."
