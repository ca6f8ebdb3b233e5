"""The options of a run as frozen dataclasses, one per block, each checked when it is made."""

from dataclasses import dataclass, field
from re import fullmatch
from typing import ClassVar, Literal

from weft_rl.config.cold_start import BAD_RECORDS, DataConfig, EstimateConfig
from weft_rl.config.fields import Block, about, option, require, shown
from weft_rl.config.lora import LoraConfig
from weft_rl.config.memory import MemoryConfig
from weft_rl.config.numbers import nearest_whole
from weft_rl.config.reliability import ReliabilityConfig
from weft_rl.config.rl import RLConfig
from weft_rl.diffusion.recipes import RECIPES, LossNorm

COLD_STARTS = tuple(RECIPES)
TASKS = ("sudoku", "countdown", "gsm8k", "math500")
# Models that are pretrained here, and the cold-start records that go with them.
TOY_MODELS = ("tiny", "small")
STAGES = ("base", *COLD_STARTS, "rl", "eval")
# What transformers can report to beside metrics.jsonl.
TRACKERS = ("tensorboard", "trackio", "wandb")


def _goes_with(length: int, width: int, steps: int) -> bool:
    """Whether so many tokens divide into blocks, and steps among them."""
    return length % width == 0 and steps <= length and steps % (length // width) == 0


@dataclass(frozen=True)
class SamplerConfig(Block):
    """How completions are denoised."""

    prefix: ClassVar[str] = "sampler."

    gen_length: int = field(metadata=about("tokens generated after the prompt", at_least=1))
    block_length: int = field(metadata=about("tokens of a block, done left to right", at_least=1))
    steps: int = field(
        metadata=about("denoising steps in all; a multiple of the number of blocks", at_least=1)
    )
    temperature: float = option(0.0, "0 takes the most probable token", at_least=0)
    remasking: Literal["low_confidence", "random"] = option(
        "low_confidence", "which tokens wait: the least confident, or any"
    )
    cfg_scale: float = option(0.0, "classifier-free guidance; 0 is off", at_least=0)
    cache: Literal["none", "prefix", "dual"] = option(
        "none", "keys and values kept within a block: none, exact; of all before it; or around it"
    )
    threshold: float | None = option(
        None,
        "commit all tokens this confident, not a fixed number a step; null is off",
        at_least=0,
        at_most=1,
    )
    early_stop: bool = option(True, "a row is finished once all up to its end token is known")
    trace: bool = option(False, "record which token was committed at which step")
    factor: float | None = option(
        None, "commit n tokens while the n-th is 1 - factor / (n + 1) confident", at_least=0
    )
    refresh_every: int | None = option(
        None,
        "with a cache: steps of a block between full forwards; null: only its first",
        at_least=1,
    )
    end_tokens: Literal["free", "late", "never", "no_eos"] = option(
        "free",
        "end tokens are like any, wait for a block's other tokens, or are not drawn; no_eos: the "
        "end of text alone is not, LLaDA's logits_eos_inf",
    )
    compile: bool = option(
        False,
        "torch.compile of the model, for batches of one shape: finished rows keep their places",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        length, width, steps = self.gen_length, self.block_length, self.steps
        count = max(length // width, 1)

        def lengths() -> list[int]:
            return nearest_whole(length, lambda each: _goes_with(each, width, steps))

        def numbers() -> list[int]:
            return nearest_whole(steps, lambda each: _goes_with(length, width, each), most=length)

        rule = f"must be a multiple of sampler.block_length={width}"
        require(length % width == 0, "sampler.gen_length", length, rule, lengths)
        rule = (
            f"must be a multiple of the {count} blocks (sampler.gen_length / sampler.block_length)"
        )
        require(steps % count == 0, "sampler.steps", steps, rule, numbers)
        rule = "must be at most sampler.gen_length, as each step commits a token"
        require(steps <= length, "sampler.steps", steps, rule, numbers)
        rule = "needs something kept; use sampler.cache=prefix or dual, or null"
        usable = self.refresh_every is None or self.cache != "none"
        require(usable, "sampler.refresh_every", self.refresh_every, rule)
        rule = "needs confidences; use sampler.remasking=low_confidence, or null"
        by_confidence = self.remasking == "low_confidence"
        for name, value in (("threshold", self.threshold), ("factor", self.factor)):
            require(value is None or by_confidence, f"sampler.{name}", value, rule)
        rule = f"is another rule than sampler.threshold={self.threshold}; set one to null"
        usable = self.factor is None or self.threshold is None
        require(usable, "sampler.factor", self.factor, rule)

    @property
    def most_steps(self) -> int:
        """Steps of a completion at most: a threshold or factor may commit a single token in each,
        whatever `steps` says."""
        by_confidence = self.threshold is not None or self.factor is not None
        return self.gen_length if by_confidence else self.steps


@dataclass(frozen=True)
class BaseConfig(Block):
    """Pretraining of the tiny or small model, kept for later runs."""

    prefix: ClassVar[str] = "base."

    hidden_size: int = option(64, "width of the network", at_least=1)
    num_hidden_layers: int = option(3, "layers", at_least=1)
    num_attention_heads: int = option(4, "attention heads", at_least=1)
    intermediate_size: int = option(128, "width of the feed-forward layers", at_least=1)
    examples: int = option(24000, "distinct examples", at_least=1)
    max_steps: int = option(400, "optimizer steps", at_least=1)
    batch_size: int = option(128, "examples a step", at_least=1)
    learning_rate: float = option(3e-3, "peak; cosine decay to 0", above=0)
    warmup_steps: int = option(40, "steps of linear warm-up", at_least=0)
    logging_steps: int = option(20, "steps between metric lines", at_least=1)
    save_steps: int = option(200, "steps between checkpoints", at_least=1)
    # NumPy's global generator, which transformers seeds, takes 32 bits
    seed: int = option(0, "the base's own, shared by all runs", at_least=0, below=2**32)

    def __post_init__(self) -> None:
        super().__post_init__()
        width, unit = self.hidden_size, self.num_attention_heads

        def widths() -> list[int]:
            return nearest_whole(width, lambda each: each % unit == 0)

        rule = f"must be a multiple of base.num_attention_heads={unit}"
        require(width % unit == 0, "base.hidden_size", width, rule, widths)


@dataclass(frozen=True)
class ColdStartConfig(Block):
    """Supervised fine-tuning on reasoning traces: sft, weft and their relatives."""

    prefix: ClassVar[str] = "cold_start."

    records: int = option(1000, "traces generated for data=tiny", at_least=1)
    epochs: float = option(20.0, "passes over the records", above=0)
    batch_size: int = option(1, "records per device and forward pass", at_least=1)
    gradient_accumulation_steps: int = option(4, "passes per optimizer step", at_least=1)
    learning_rate: float = option(1e-5, "peak; linear decay to 0", above=0)
    weight_decay: float = option(0.1, "AdamW's", at_least=0)
    max_grad_norm: float = option(1.0, "longer gradients are scaled down to it", above=0)
    data: DataConfig = field(default_factory=DataConfig)
    normalizer: LossNorm = field(
        default="answer",
        metadata=about("a record's loss is divided by its answer tokens, its masked ones, or 1"),
    )
    slope: bool = option(False, "weight by dt_i/dt, the exact bound")
    times: Literal["independent", "stratified", "antithetic"] = option(
        "independent", "of a forward pass: each by itself, spread over (0, 1), in pairs t and 1 - t"
    )
    estimate: EstimateConfig = field(default_factory=lambda: EstimateConfig())
    logging_steps: int = option(10, "steps between metric lines", at_least=1)
    save_steps: int = option(100, "steps between checkpoints", at_least=1)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = (
            "keeps one rate an answer token, and with cold_start.data.pad_in_answer their number "
            "changes with the batch; use fresh"
        )
        fits = self.estimate.rates == "fresh" or not self.data.pad_in_answer
        require(fits, "cold_start.estimate.rates", self.estimate.rates, rule)
        rule = (
            "is the exact bound of a record divided by a fixed number, and cold_start.normalizer="
            "masked is a random one; use answer or none there, or stages=[weft_exact]"
        )
        fits = not self.slope or self.normalizer != "masked"
        require(fits, "cold_start.slope", self.slope, rule)
        rule = (
            "spreads the times of a forward pass, which has one with cold_start.batch_size=1; "
            "raise that, or use independent"
        )
        fits = self.batch_size > 1 or self.times == "independent"
        require(fits, "cold_start.times", self.times, rule)


@dataclass(frozen=True)
class EvalConfig(Block):
    """Evaluation on held-out records."""

    prefix: ClassVar[str] = "eval."

    after_each: bool = option(True, "evaluate after every stage")
    num_records: int | None = option(
        None, "held-out records, or as many as there are; null: 256, paper's all", at_least=1
    )
    batch_size: int = option(256, "records denoised together", at_least=1)
    data: str | None = option(
        None, "a file, a data set of the hub, published, or d1 (its 256 puzzles); null: generated"
    )
    bad_records: Literal["error", "skip", "strict"] = option("error", BAD_RECORDS)
    preset: Literal["run", "paper"] = option(
        "run", "paper: WeFT's evaluation, its lengths, prompts and data; run: this run's options"
    )
    gen_length: int | None = option(
        None, "tokens generated, with steps in proportion; null: sampler's, or paper's", at_least=1
    )


@dataclass(frozen=True)
class RunConfig(Block):
    """A run: its stages in order, on one run folder."""

    stages: list[str] = field(
        default_factory=lambda: ["weft", "rl"],
        metadata=about(f"in order, of {' '.join(STAGES)}"),
    )
    model: str = option(
        "tiny", "tiny, small, llada_8b, llada_1_5, dream_7b, a local folder or a hub id"
    )
    task: str = option(
        "sudoku", f"of RL and evaluation: {', '.join(TASKS)}, or a Python file (docs/tasks.md)"
    )
    rewards: Literal["plain", "d1", "d1_strict"] = option(
        "plain", "RL's: being right, d1's weighted sum with format rewards, or d1's exact values"
    )
    data: str = option(
        "tiny", "cold-start records: tiny, small, a file or folder, a hub id, s1k, openr1-3k"
    )
    prompt_style: Literal["tiny", "d1"] = option("tiny", "wording of the prompts")
    seed: int = option(0, "of data order, masks and samples", at_least=0, below=2**32)
    out: str | None = option(None, "run folder; null: runs/<time>-<stages>")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    resume: Literal["auto", "never"] = option("auto", "auto goes on where the run folder stopped")
    trackers: list[str] = field(
        default_factory=list,
        metadata=about(f"dashboards beside metrics.jsonl, of {' '.join(TRACKERS)}"),
    )
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    reliability: ReliabilityConfig = field(default_factory=ReliabilityConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    cold_start: ColdStartConfig = field(default_factory=ColdStartConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(32, 32, 16))

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"must be one of {', '.join(TASKS)}, or a Python file that ends in .py"
        require(self.task in TASKS or self.task.endswith(".py"), "task", self.task, rule)
        require(self.stages != [], "stages", self.stages, f"name some of {', '.join(STAGES)}")
        for stage in self.stages:
            rule = f"{shown(stage)} is no stage; there are {', '.join(STAGES)}"
            require(stage in STAGES, "stages", self.stages, rule)
            once = stage == "eval" or self.stages.count(stage) == 1
            require(once, "stages", self.stages, f"{stage} stands there twice; leave one out")
        for tracker in self.trackers:
            rule = f"{shown(tracker)} is no tracker; there are {', '.join(TRACKERS)}"
            require(tracker in TRACKERS, "trackers", self.trackers, rule)
        rule = f"base pretrains tiny and small, not model={shown(self.model)}; leave base out"
        fits = "base" not in self.stages or self.model in TOY_MODELS
        require(fits, "stages", self.stages, rule)
        for stage in self.stages:
            rule = f"is needed by stage {stage}: name a checkpoint, for instance of an sft run"
            needed = stage in RECIPES and RECIPES[stage].needs_reference
            fits = not needed or self.cold_start.estimate.reference is not None
            require(fits, "cold_start.estimate.reference", None, rule)
        rule = "would round away the steps of trained weights; use float32, or set {0}.r"
        for name, block in (("cold_start", self.cold_start), ("rl", self.rl)):
            used = {"rl" if stage == "rl" else "cold_start" for stage in self.trained}
            fits = (
                name not in used or block.lora.r > 0 or self.memory.weights in ("float32", "auto")
            )
            require(fits, "memory.weights", self.memory.weights, rule.format(f"{name}.lora"))
        rule = "guides samples, and rl.estimator=trace scores the sampler's steps without it; use 0"
        fits = "rl" not in self.stages or self.rl.estimator != "trace"
        guidance = self.sampler.cfg_scale
        require(fits or guidance == 0, "sampler.cfg_scale", guidance, rule)
        known = fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device)
        require(known is not None, "device", self.device, "must be auto, cpu, cuda or cuda:N")

    @property
    def in_order(self) -> list[str]:
        """All stages as they run: a generated model is pretrained first, named or not."""
        rest = [stage for stage in self.stages if stage != "base"]
        return ["base", *rest] if self.model in TOY_MODELS else rest

    @property
    def trained(self) -> list[str]:
        """The stages that train on from a start."""
        return [stage for stage in self.stages if stage not in ("base", "eval")]

    @property
    def adapters_only(self) -> bool:
        """Whether no stage trains the weights of its start themselves."""
        blocks = [self.rl if stage == "rl" else self.cold_start for stage in self.trained]
        return all(block.lora.r > 0 for block in blocks)
