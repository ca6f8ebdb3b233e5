"""The options of a run as frozen dataclasses, one per block, each checked when it is made."""

from dataclasses import dataclass, field

from weft_rl.errors import UserError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


@dataclass(frozen=True)
class SamplerConfig:
    """How completions are denoised."""

    gen_length: int  # tokens generated after the prompt
    block_length: int  # blocks are finished left to right; divides gen_length
    steps: int  # denoising steps over all blocks; a multiple of the number of blocks
    temperature: float = 0.0  # 0 takes the most probable token
    remasking: str = "low_confidence"  # which positions are committed first: low_confidence, random
    cfg_scale: float = 0.0  # classifier-free guidance; 0 is off
    cache: str = "none"  # only "none": every step is a full forward pass
    threshold: float | None = None  # commit all positions at least this confident, instead of a quota
    early_stop: bool = True  # a row is finished once everything up to its end token is known
    trace: bool = False  # record which position became which token at which step


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters; r = 0 trains all weights."""

    r: int = 0
    alpha: int = 16
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj"])


@dataclass(frozen=True)
class BaseConfig:
    """Pretraining of the tiny model."""

    max_steps: int = 600
    batch_size: int = 256
    learning_rate: float = 3e-3
    probe_accuracy: float = 0.42  # stop once this cell accuracy on training grids is reached
    probe_every: int = 20
    decay_steps: int = 60  # learning-rate decay after the probe has stopped the main phase


@dataclass(frozen=True)
class ColdStartConfig:
    """Supervised fine-tuning on reasoning traces: SFT, WeFT and their relatives."""

    epochs: float = 20
    batch_size: int = 1
    gradient_accumulation_steps: int = 4
    learning_rate: float = 1e-5
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    max_length: int = 4096
    normalizer: str = "answer"  # answer, masked, none
    slope: bool = False  # weight by dt_i/dt: the exact bound
    logging_steps: int = 10
    save_steps: int = 100
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class RLConfig:
    """diffu-GRPO."""

    max_steps: int = 80  # optimizer steps
    num_prompts: int = 32  # prompts per rollout
    num_generations: int = 8  # G, completions per prompt
    num_iterations: int = 2  # mu, optimizer steps per rollout
    learning_rate: float = 7e-4
    temperature: float = 1.0  # of the rollouts
    kl_coef: float = 0.01
    clip_coef: float = 0.5
    prompt_mask_probability: float = 0.15
    estimator: str = "one_step"
    objective: str = "grpo"
    max_grad_norm: float = 0.2
    logging_steps: int = 1
    save_steps: int = 20
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class EvalConfig:
    """Held-out evaluation."""

    after_each: bool = True
    num_puzzles: int = 256
    batch_size: int = 128
    data: str | None = None  # a puzzle file, or "published"; null: generated, held-out orbits


@dataclass(frozen=True)
class RunConfig:
    """One run of the pipeline."""

    stages: list[str] = field(default_factory=lambda: ["weft", "rl"])
    model: str = "tiny"
    task: str = "sudoku"
    data: str = "tiny"  # cold-start records: "tiny" (generated), a local file or folder, a hub id
    seed: int = 0
    out: str | None = None  # null: runs/<time>-<name>
    device: str = "auto"
    resume: str = "auto"  # auto, never
    base: BaseConfig = field(default_factory=BaseConfig)
    cold_start: ColdStartConfig = field(default_factory=ColdStartConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(32, 32, 16))
