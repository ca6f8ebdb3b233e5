"""Options of reinforcement learning, and valid combinations of methods."""

from dataclasses import dataclass, field
from typing import Literal

from weft_rl.config.cold_start import BAD_RECORDS
from weft_rl.config.fields import Block, option, require
from weft_rl.config.model import RLLoraConfig
from weft_rl.diffusion.rl_methods import (
    ESTIMATORS,
    PER_TOKEN_LOSSES,
    RL_LOSSES,
    EstimatorName,
    LossName,
)


@dataclass(frozen=True)
class RolloutConfig(Block, prefix="rl.rollout."):
    """Rollouts: sampling, records, rewards."""

    temperature: float = option(
        1.0, "sampling temperature of rollouts; the loss uses temperature 1", above=0
    )
    data: str | None = option(None, "file with training records; null: generated records")
    bad_records: Literal["error", "skip", "strict"] = option("error", BAD_RECORDS)
    reward_weights: list[float] = option([], "weight of each reward of the task; []: 1 each")
    resample: int = option(
        0, "number of times to resample groups whose rewards are all equal", at_least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "all weights are 0; give a nonzero one, or [] for 1 each"
        fits = not self.reward_weights or any(self.reward_weights)
        self.require(fits, "reward_weights", rule)


@dataclass(frozen=True)
class MasksConfig(Block, prefix="rl.masks."):
    """Masks of the log-probability estimators."""

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
class LossConfig(Block, prefix="rl.loss."):
    """Loss coefficients."""

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
class OptimizerConfig(Block, prefix="rl.optimizer."):
    """AdamW and micro-batches."""

    warmup_steps: int = option(0, "steps of linear warmup", at_least=0)
    weight_decay: float = option(0.0, "AdamW weight decay", at_least=0)
    max_grad_norm: float = option(0.2, "gradient clipping: maximum norm", above=0)
    adam_epsilon: float = option(1e-8, "AdamW epsilon", above=0)
    micro_batch_size: int | None = option(
        None, "completions per forward pass and process; null: all", at_least=1
    )


@dataclass(frozen=True)
class WatchConfig(Block, prefix="rl.watch."):
    """Logging and evaluation during training."""

    logging_steps: int = option(1, "steps between logged metrics", at_least=1)
    evaluate_steps: int | None = option(
        None, "steps between evaluations on held-out records; null: none", at_least=1
    )
    evaluate_records: int = option(64, "held-out records per evaluation", at_least=1)


@dataclass(frozen=True)
class RLConfig(Block, prefix="rl."):
    """Reinforcement learning on a task's rewards: diffu-GRPO and later methods."""

    max_steps: int = option(80, "optimizer steps", at_least=1)
    num_prompts: int = option(32, "prompts per rollout, over all processes", at_least=1)
    num_generations: int = option(8, "G: completions per prompt", at_least=2)
    num_iterations: int = option(2, "mu: optimizer steps per rollout", at_least=1)
    learning_rate: float = option(7e-4, "learning rate, constant after warmup", above=0)
    kl_coef: float = option(0.01, "KL weight; 0: no reference model", at_least=0)
    estimator: EstimatorName = option("one_step", "log-probability estimator; one_step: d1's")
    loss_type: LossName = option(
        "bnpo", "PPO-clip by normalizer (bnpo: d1's; grpo, dr_grpo, dapo), or gspo, wd1, spg"
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
        rule = (
            f"must divide the {rows} completions of a rollout (rl.num_prompts x rl.num_generations)"
        )
        fits = rows % (self.optimizer.micro_batch_size or rows) == 0
        self.require(fits, "optimizer.micro_batch_size", rule, search=True)
        self._check_method()
        self._check_masks()

    def micro_batch(self, processes: int) -> int:
        """Return completions per forward pass and process. Raises UserError if indivisible."""
        rows = self.num_prompts * self.num_generations
        size = self.optimizer.micro_batch_size or rows // processes
        fits = size > 0 and rows % (size * processes) == 0
        rule = f"times {processes} processes must divide the {rows} completions of a rollout"
        require(fits, "rl.optimizer.micro_batch_size", size, rule)
        return size

    def _check_method(self) -> None:
        """Raise BadOption for a loss without the estimator's probabilities, or without effect."""
        method, loss = RL_LOSSES[self.loss_type], self.loss
        fits = self.estimator in method.estimators
        self.require(fits, "loss_type", f"with rl.estimator={self.estimator}: {method.fix}")
        is_bound = ESTIMATORS[self.estimator].is_bound
        rule = (
            f"rl.estimator={self.estimator} has no token probabilities; use "
            "rl.loss.kl_estimator=k2_sequence, or rl.kl_coef=0 for no reference"
            f"{', as rl.preset=spg has it' if self.loss_type == 'spg' else ''}"
        )
        fits = self.kl_coef == 0 or not is_bound or loss.kl_estimator == "k2_sequence"
        self.require(fits, "loss.kl_estimator", rule)
        for name, is_off in (
            ("loss.top_entropy_share", loss.top_entropy_share == 1),
            ("loss.kl_cov_share", loss.kl_cov_share == 0),
        ):
            rule = f"needs a per-token loss, not rl.loss_type={self.loss_type}; use "
            self.require(is_off or method.per_token, name, rule + ", ".join(PER_TOKEN_LOSSES))
        rule = "has no effect with rl.num_iterations=1; use 2 or more, or a share of 0"
        fits = loss.kl_cov_share == 0 or self.num_iterations > 1
        self.require(fits, "loss.kl_cov_share", rule)

    def _check_masks(self) -> None:
        """Raise BadOption for mask options of other estimators."""
        for name in ("num_mc_samples", "t_sampling", "complement", "blockwise"):
            owners = [owner for owner, each in ESTIMATORS.items() if name in each.options]
            is_default = getattr(self.masks, name) == getattr(MasksConfig(), name)
            rule = f"only for rl.estimator={', '.join(owners)}, not {self.estimator}; leave it out"
            self.require(is_default or self.estimator in owners, f"masks.{name}", rule)
