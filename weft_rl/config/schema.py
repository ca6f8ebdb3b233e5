"""Options of a run as frozen dataclasses, validated on construction."""

from dataclasses import dataclass, field
from re import fullmatch
from typing import Literal

from weft_rl.config.a2d import A2DConfig
from weft_rl.config.cold_start import BAD_RECORDS, ColdStartConfig
from weft_rl.config.fields import Block, option, shown
from weft_rl.config.model import MemoryConfig
from weft_rl.config.rl import RLConfig
from weft_rl.config.sampler import SamplerConfig
from weft_rl.diffusion.recipes import RECIPES

COLD_STARTS = tuple(RECIPES)
TASKS = ("sudoku", "countdown", "gsm8k", "math500")
# Models that stage `base` pretrains, and the names of their cold-start data.
TOY_MODELS = ("tiny",)
# Values of data= with generated traces: of tiny's vocabulary, or in the words of prompt_style.
GENERATED_DATA = (*TOY_MODELS, "sudoku", "countdown")
# Models that stage `a2d` adapts first; families.AUTOREGRESSIVE has their Hub ids.
AUTOREGRESSIVE_MODELS = ("smollm2_135m", "qwen3_0_6b")
# Stages that make the initial model of the others.
INITIAL_STAGES = ("base", "a2d")
STAGES = (*INITIAL_STAGES, *COLD_STARTS, "rl", "eval")
# Values of transformers' report_to.
TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True)
class BaseConfig(Block, prefix="base."):
    """Pretraining of a toy model; cached for later runs."""

    hidden_size: int = option(64, "hidden size", at_least=1)
    num_hidden_layers: int = option(3, "number of layers", at_least=1)
    num_attention_heads: int = option(4, "number of attention heads", at_least=1)
    intermediate_size: int = option(128, "feed-forward size", at_least=1)
    examples: int = option(24000, "number of distinct examples", at_least=1)
    max_steps: int = option(400, "optimizer steps", at_least=1)
    batch_size: int = option(128, "examples per step", at_least=1)
    learning_rate: float = option(3e-3, "peak learning rate; cosine decay to 0", above=0)
    warmup_steps: int = option(40, "steps of linear warmup", at_least=0)
    logging_steps: int = option(20, "steps between logged metrics", at_least=1)
    save_steps: int = option(200, "steps between checkpoints", at_least=1)
    # transformers seeds NumPy's global generator, which takes 32 bits
    seed: int = option(0, "seed of the pretraining, the same in all runs", at_least=0, below=2**32)

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"must be a multiple of base.num_attention_heads={self.num_attention_heads}"
        fits = self.hidden_size % self.num_attention_heads == 0
        self.require(fits, "hidden_size", rule, search=True)


@dataclass(frozen=True)
class EvalConfig(Block, prefix="eval."):
    """Evaluation on held-out records."""

    after_each: bool = option(True, "evaluate after every stage")
    num_records: int | None = option(
        None, "maximum number of held-out records; null: 256, or all with preset=paper", at_least=1
    )
    batch_size: int = option(256, "records per batch", at_least=1)
    data: str | None = option(
        None, "file, Hub data set, `published`, or `d1` (its 256 puzzles); null: generated records"
    )
    bad_records: Literal["error", "skip", "strict"] = option("error", BAD_RECORDS)
    preset: Literal["run", "paper"] = option(
        "run", "paper: lengths, prompts and data of the WeFT paper; run: options of this run"
    )
    nelbo_records: int = option(
        0, "records of data= held out of the cold start, for its NELBO; 0: none", at_least=0
    )
    gen_length: int | None = option(
        None, "tokens to generate, steps in proportion; null: as sampler or preset", at_least=1
    )


@dataclass(frozen=True)
class ReliabilityConfig(Block, prefix="reliability."):
    """Checkpoint retention, NaN steps to skip, stalled processes."""

    keep_checkpoints: int | None = option(
        2, "newest checkpoints to keep per stage; null: all", at_least=1
    )
    stall_timeout: float = option(
        1800.0,
        "seconds without a step after which a run of several processes stops and names the rank",
        above=0,
    )
    skip_steps: int = option(
        0,
        "steps with a NaN or infinite loss or gradient to skip per stage; one more stops the run",
        at_least=0,
    )


@dataclass(frozen=True)
class RunConfig(Block):
    """A run: stages in order, in one run directory."""

    stages: list[str] = option(["weft", "rl"], f"stages in order; any of {' '.join(STAGES)}")
    model: str = option(
        "tiny",
        "tiny, smollm2_135m, llada_8b, ... (weft-rl presets), a folder, run, GGUF file or Hub id",
    )
    task: str = option(
        "sudoku", f"task of RL and evaluation: {', '.join(TASKS)}, or a Python file (docs/tasks.md)"
    )
    rewards: Literal["plain", "d1", "d1_strict"] = option(
        "plain", "RL rewards: correctness only, d1's weighted sum, or d1's exact functions"
    )
    data: str = option(
        "tiny",
        "cold-start data: tiny, sudoku or countdown (generated), a file or folder, a Hub id, s1k, "
        "openr1-3k",
    )
    prompt_style: Literal["tiny", "chat", "d1"] = option(
        "tiny", "prompts of the tasks and of s1K; chat: short ones for small models"
    )
    prompt_template: str | None = option(
        None, "also task.prompt: prompt over a record's fields, like 'Solve: {question}'"
    )
    system: str | None = option(None, "system message before every prompt; null: none")
    seed: int = option(0, "seed of data order, masks and samples", at_least=0, below=2**32)
    out: str | None = option(None, "run directory; null: runs/<time>-<stages>")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    resume: Literal["auto", "never"] = option(
        "auto", "auto: resume the run directory; never: fail if it exists"
    )
    trackers: list[str] = option(
        [], f"experiment trackers beside metrics.jsonl; any of {' '.join(TRACKERS)}"
    )
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    reliability: ReliabilityConfig = field(default_factory=ReliabilityConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    a2d: A2DConfig = field(default_factory=A2DConfig)
    cold_start: ColdStartConfig = field(default_factory=ColdStartConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(32, 32, 16))

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"must be one of {', '.join(TASKS)}, or a Python file that ends in .py"
        self.require(self.task in TASKS or self.task.endswith(".py"), "task", rule)
        known = fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device) is not None
        self.require(known, "device", "must be auto, cpu, cuda or cuda:N")
        for tracker in self.trackers:
            rule = f"{shown(tracker)}: unknown tracker; use {', '.join(TRACKERS)}"
            self.require(tracker in TRACKERS, "trackers", rule)
        self._check_stages()
        rule = "rl.estimator=trace scores the steps of a sampler without guidance; use 0"
        fits = "rl" not in self.stages or self.rl.estimator != "trace"
        self.require(fits or self.sampler.cfg_scale == 0, "sampler.cfg_scale", rule)
        rule = "training all weights needs float32; use memory.dtype=float32, or set {0}.lora.r"
        key = "quantization" if self.memory.quantization == "nf4" else "dtype"
        for stage in self.trained:
            name, block = ("rl", self.rl) if stage == "rl" else ("cold_start", self.cold_start)
            fits = block.lora.r > 0 or self.memory.weights in ("float32", "auto")
            self.require(fits, f"memory.{key}", rule.format(name))

    def _check_stages(self) -> None:
        self.require(self.stages != [], "stages", f"name some of {', '.join(STAGES)}")
        for stage in self.stages:
            rule = f"{shown(stage)}: unknown stage; use {', '.join(STAGES)}"
            self.require(stage in STAGES, "stages", rule)
            once = stage == "eval" or self.stages.count(stage) == 1
            self.require(once, "stages", f"{stage} is repeated; remove one")
            rule = (
                f"stage {stage} needs a reference model; name a checkpoint, such as of an sft run"
            )
            fits = stage not in RECIPES or not RECIPES[stage].needs_reference
            self.require(fits or bool(self.cold_start.ref_model), "cold_start.ref_model", rule)
        rule = f"base pretrains tiny, not model={shown(self.model)}; leave base out"
        self.require("base" not in self.stages or self.model in TOY_MODELS, "stages", rule)
        rule = f"a2d adapts an autoregressive model, not model={shown(self.model)}; leave a2d out"
        fits = "a2d" not in self.stages or self.model not in TOY_MODELS
        self.require(fits, "stages", rule)

    @property
    def in_order(self) -> list[str]:
        """All stages in execution order; a toy model is pretrained, an AR model adapted first."""
        stages = [stage for stage in self.stages if stage not in INITIAL_STAGES]
        if self.model in TOY_MODELS:
            return ["base", *stages]
        adapts = "a2d" in self.stages or self.model in AUTOREGRESSIVE_MODELS
        return ["a2d", *stages] if adapts else stages

    @property
    def trained(self) -> list[str]:
        """Stages that train, except those of the initial model."""
        return [stage for stage in self.stages if stage not in (*INITIAL_STAGES, "eval")]

    @property
    def adapters_only(self) -> bool:
        """Whether all stages train adapters only."""
        blocks = [self.rl if stage == "rl" else self.cold_start for stage in self.trained]
        return all(block.lora.r > 0 for block in blocks)
