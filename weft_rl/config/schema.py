"""The options of a run as frozen dataclasses, one per block, each checked when it is made."""

from dataclasses import dataclass, field
from re import fullmatch
from typing import ClassVar, Literal

from weft_rl.config.cold_start import BAD_RECORDS, ColdStartConfig
from weft_rl.config.fields import Block, about, option, require, shown
from weft_rl.config.model import MemoryConfig
from weft_rl.config.numbers import nearest_whole
from weft_rl.config.rl import RLConfig
from weft_rl.config.sampler import SamplerConfig

COLD_STARTS = (
    *("sft", "weft", "weft_paper", "weft_exact", "weft_entropy", "nll", "weft_sw", "dream"),
    *("dft", "rho1"),
)
TASKS = ("sudoku", "countdown", "gsm8k", "math500")
# Models that are pretrained here, and the cold-start records that go with them.
TOY_MODELS = ("tiny", "small")
STAGES = ("base", *COLD_STARTS, "rl", "eval")
# What transformers can report to beside metrics.jsonl.
TRACKERS = ("tensorboard", "trackio", "wandb")


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
class ReliabilityConfig(Block):
    """Checkpoints kept, steps passed over, how long a process may stand still."""

    prefix: ClassVar[str] = "reliability."

    keep_checkpoints: int | None = option(
        2,
        "newest ones kept of a stage, the second in case the first is damaged; null: all",
        at_least=1,
    )
    stall_timeout: float = option(
        1800.0,
        "seconds without a step after which several processes end, saying who stands where",
        above=0,
    )
    skip_steps: int = option(
        0,
        "steps of a stage with a loss or gradient that is no number passed over; one more stops",
        at_least=0,
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
        rule = "is needed by stage rho1: name a checkpoint, for instance of an sft run"
        fits = "rho1" not in self.stages or self.cold_start.ref_model is not None
        require(fits, "cold_start.ref_model", None, rule)
        rule = "would round away the steps of trained weights; use float32, or set {0}.r"
        for name, block in (("cold_start", self.cold_start), ("rl", self.rl)):
            used = {"rl" if stage == "rl" else "cold_start" for stage in self.trained}
            fits = (
                name not in used or block.lora.r > 0 or self.memory.weights in ("float32", "auto")
            )
            require(fits, self.memory.weights_key, self.memory.weights, rule.format(f"{name}.lora"))
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
