"""Options of reinforcement learning, and valid combinations of methods."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from weft_rl.config.cold_start import BAD_RECORDS
from weft_rl.config.fields import Block, about, option, require
from weft_rl.config.model import RLLoraConfig
from weft_rl.config.near_values import nearest_whole
from weft_rl.diffusion.rl_methods import (
    ESTIMATORS,
    PER_TOKEN_LOSSES,
    RL_LOSSES,
    EstimatorName,
    LossName,
)


@dataclass(frozen=True)
class RolloutConfig(Block):
    """Rollouts: sampling, records, rewards."""

    prefix: ClassVar[str] = "rl.rollout."

    temperature: float = option(
        1.0, "sampling temperature of rollouts; the loss uses temperature 1", above=0
    )
    data: str | None = option(None, "file with training records; null: generated records")
    bad_records: Literal["error", "skip", "strict"] = option("error", BAD_RECORDS)
    reward_weights: list[float] = field(
        default_factory=list, metadata=about("weight of each reward of the task; []: 1 each")
    )
    resample: int = option(
        0, "number of times to resample groups whose rewards are all equal", at_least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.reward_weights
        rule = "all weights are 0; give a nonzero one, or [] for 1 each"
        require(not weights or any(weights), "rl.rollout.reward_weights", weights, rule)


@dataclass(frozen=True)
class MasksConfig(Block):
    """Masks of the log-probability estimators."""

    prefix: ClassVar[str] = "rl.masks."

    prompt_probability: float = option(
        0.15, "probability that a prompt token is masked", at_least=0, below=1
    )
    share_group_masks: bool = option(
        True, "completions of a prompt share their masks: faster; false: d1's"
    )
    num_mc_samples: int = option(
        2, "Monte Carlo masks per completion (random_mask, elbo) or its slices (trace)", at_least=1
    )
    t_sampling: Literal["random", "quadrature"] = option(
        "random", "elbo: how mask ratios are drawn"
    )
    complement: bool = option(False, "elbo: also use the complement of each mask")
    blockwise: bool = option(True, "elbo of blockwise sampling; false: of any order")


@dataclass(frozen=True)
class LossConfig(Block):
    """Loss coefficients."""

    prefix: ClassVar[str] = "rl.loss."

    clip_coef: float = option(0.5, "PPO clip range of probability ratios: 1 -/+ clip_coef", above=0)
    baseline: Literal["mean", "leave_one_out", "z_score"] = option(
        "mean", "advantage: reward minus group mean, minus mean of the others, or z-score"
    )
    kl_estimator: Literal["k3", "k2_sequence"] = option(
        "k3", "KL to the reference model: k3 per token, or k2 per sequence"
    )
    wd1_temperature: float = option(1.0, "wd1: temperature of the softmax over advantages", above=0)
    spg_exponent: float = option(1.5, "SPG: exponent b of the upper bound", above=0)
    spg_mixture: float = option(
        0.5, "SPG: weight omega of the upper bound for negative advantages", at_least=0, at_most=1
    )
    top_entropy_share: float = option(
        1.0, "share of tokens with the highest entropy to train on", above=0, at_most=1
    )
    kl_cov_share: float = option(
        0.0,
        "KL-Cov: share of tokens with the highest covariance to penalize",
        at_least=0,
        at_most=1,
    )
    kl_cov_coef: float = option(1.0, "KL-Cov: weight of the penalty", above=0)


@dataclass(frozen=True)
class OptimizerConfig(Block):
    """AdamW and micro-batches."""

    prefix: ClassVar[str] = "rl.optimizer."

    warmup_steps: int = option(0, "steps of linear warmup", at_least=0)
    weight_decay: float = option(0.0, "AdamW weight decay", at_least=0)
    max_grad_norm: float = option(0.2, "gradient clipping: maximum norm", above=0)
    adam_epsilon: float = option(1e-8, "AdamW epsilon", above=0)
    micro_batch_size: int | None = option(
        None, "completions per forward pass and process; null: all", at_least=1
    )


@dataclass(frozen=True)
class WatchConfig(Block):
    """Logging and evaluation during training."""

    prefix: ClassVar[str] = "rl.watch."

    logging_steps: int = option(1, "steps between logged metrics", at_least=1)
    evaluate_steps: int | None = option(
        None, "steps between evaluations on held-out records; null: none", at_least=1
    )
    evaluate_records: int = option(64, "held-out records per evaluation", at_least=1)


@dataclass(frozen=True)
class RLConfig(Block):
    """Reinforcement learning on a task's rewards: diffu-GRPO and later methods."""

    prefix: ClassVar[str] = "rl."

    max_steps: int = option(80, "optimizer steps", at_least=1)
    num_prompts: int = option(32, "prompts per rollout, over all processes", at_least=1)
    num_generations: int = option(8, "G: completions per prompt", at_least=2)
    num_iterations: int = option(2, "mu: optimizer steps per rollout", at_least=1)
    learning_rate: float = option(7e-4, "learning rate, constant after warmup", above=0)
    kl_coef: float = option(0.01, "KL weight; 0: no reference model", at_least=0)
    estimator: EstimatorName = field(
        default="one_step", metadata=about("log-probability estimator; one_step: d1's")
    )
    loss_type: LossName = field(
        default="bnpo",
        metadata=about(
            "PPO-clip by normalizer (bnpo: d1's; grpo, dr_grpo, dapo), or gspo, wd1, spg"
        ),
    )
    save_steps: int = option(20, "steps between checkpoints", at_least=1)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    masks: MasksConfig = field(default_factory=MasksConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    lora: RLLoraConfig = field(default_factory=RLLoraConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = self.num_prompts * self.num_generations
        size = self.optimizer.micro_batch_size or rows
        rule = (
            f"must divide the {rows} completions of a rollout (rl.num_prompts x rl.num_generations)"
        )
        require(
            rows % size == 0,
            "rl.optimizer.micro_batch_size",
            size,
            rule,
            lambda: nearest_whole(min(size, rows), lambda each: rows % each == 0, most=rows),
        )
        _check_pair(self)

    def micro_batch(self, processes: int) -> int:
        """Return completions per forward pass and process. Raises UserError if indivisible."""
        rows = self.num_prompts * self.num_generations
        size = self.optimizer.micro_batch_size or rows // processes
        fits = size > 0 and rows % (size * processes) == 0
        rule = f"times {processes} processes must divide the {rows} completions of a rollout"
        share = rows // processes if rows % processes == 0 else 0

        def parts() -> list[int]:
            return nearest_whole(min(size, share), lambda each: share % each == 0, most=share)

        require(fits, "rl.optimizer.micro_batch_size", size, rule, parts)
        return size


def _check_pair(options: RLConfig) -> None:
    estimator, loss_type, loss = options.estimator, options.loss_type, options.loss
    kl_coef, masks = options.kl_coef, options.masks
    method, is_bound = RL_LOSSES[loss_type], ESTIMATORS[estimator].is_bound
    fits = estimator in method.estimators
    require(fits, "rl.loss_type", loss_type, f"with rl.estimator={estimator}: {method.fix}")
    fits = kl_coef == 0 or not is_bound or loss.kl_estimator == "k2_sequence"
    rule = (
        f"rl.estimator={estimator} has no token probabilities; use "
        "rl.loss.kl_estimator=k2_sequence, or "
        f"rl.kl_coef=0 for no reference{', as rl.preset=spg has it' if loss_type == 'spg' else ''}"
    )
    require(fits, "rl.loss.kl_estimator", loss.kl_estimator, rule)
    for name in ("num_mc_samples", "t_sampling", "complement", "blockwise"):
        owners = [owner for owner, each in ESTIMATORS.items() if name in each.options]
        value, usual = getattr(masks, name), getattr(MasksConfig(), name)
        rule = f"only for rl.estimator={', '.join(owners)}, not {estimator}; leave it out"
        require(value == usual or estimator in owners, f"rl.masks.{name}", value, rule)
    for key, value, is_off in (
        ("rl.loss.top_entropy_share", loss.top_entropy_share, loss.top_entropy_share == 1),
        ("rl.loss.kl_cov_share", loss.kl_cov_share, loss.kl_cov_share == 0),
    ):
        rule = f"needs a per-token loss, not rl.loss_type={loss_type}; use "
        rule += ", ".join(PER_TOKEN_LOSSES)
        require(is_off or method.per_token, key, value, rule)
    rule = "has no effect with rl.num_iterations=1; use 2 or more, or a share of 0"
    fits = loss.kl_cov_share == 0 or options.num_iterations > 1
    require(fits, "rl.loss.kl_cov_share", loss.kl_cov_share, rule)
