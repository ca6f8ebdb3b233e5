"""Arguments of diffusion RL."""

from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from typing import Any, Literal

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from weft_rl.config.rl import LossConfig, MasksConfig, OptimizerConfig, RLConfig, RolloutConfig
from weft_rl.diffusion.rl_methods import ESTIMATORS, PER_TOKEN_LOSSES, RL_LOSSES
from weft_rl.sampler import SamplerConfig
from weft_rl.trainers.setup import require_choices

_SAMPLING = "the diffusion sampler has no such option; see SamplerConfig"
_AUTOREGRESSIVE = "it needs an autoregressive model"
_LOSS = "no loss of this package uses it; see loss_type and estimator"
# TRL's options that a diffusion model cannot follow, their only value, and the reason.
_FIXED: dict[str, tuple[Any, str]] = {
    "use_vllm": (False, "vLLM has no diffusion sampler; rollouts use SamplerConfig"),
    "use_liger_kernel": (False, _AUTOREGRESSIVE),
    "use_transformers_continuous_batching": (False, _AUTOREGRESSIVE),
    "cache_implementation": (None, "use SamplerConfig(cache=...)"),
    "generation_kwargs": (None, _SAMPLING),
    "top_p": (1.0, _SAMPLING),
    "top_k": (0, _SAMPLING),
    "min_p": (None, _SAMPLING),
    "repetition_penalty": (1.0, _SAMPLING),
    "chat_template_kwargs": (None, "render the prompt yourself and give it as a text"),
    "importance_sampling_level": ("token", "use loss_type='gspo' for ratios of sequences"),
    "epsilon_high": (None, _LOSS),
    "delta": (None, _LOSS),
    "entropy_coef": (0.0, _LOSS),
    "use_adaptive_entropy": (False, _LOSS),
    "off_policy_mask_threshold": (None, _LOSS),
    "mask_truncated_completions": (False, _LOSS),
    "router_aux_loss_coef": (None, _LOSS),
    "sync_ref_model": (False, "the reference model stays the initial one"),
}

# Argument -> option of the command line, without "rl.".
_OPTIONS = {
    "num_generations": "num_generations",
    "num_iterations": "num_iterations",
    "beta": "kl_coef",
    "estimator": "estimator",
    "loss_type": "loss_type",
    "temperature": "rollout.temperature",
    "resample": "rollout.resample",
    "prompt_mask_probability": "masks.prompt_probability",
    "epsilon": "loss.clip_coef",
    "top_entropy_quantile": "loss.top_entropy_share",
    **{
        name: f"masks.{name}"
        for name in ("share_group_masks", "num_mc_samples", "t_sampling", "complement", "blockwise")
    },
    **{
        name: f"loss.{name}"
        for name in (
            *("baseline", "kl_estimator", "wd1_temperature", "spg_exponent", "spg_mixture"),
            *("kl_cov_share", "kl_cov_coef"),
        )
    },
}


@dataclass
class DiffuGRPOConfig(GRPOConfig):
    """Arguments of a DiffuGRPOTrainer, besides those of trl.GRPOConfig.

    sampler: a SamplerConfig or its fields; None: max_completion_length tokens in blocks of 32, two
    per step. Rollouts use `temperature`, not the sampler's. estimator: of log-probabilities, a name
    of weft_rl.diffusion.rl_methods.ESTIMATORS; "one_step" is d1's. loss_type: a name of RL_LOSSES:
    PPO-clip by normalizer ("bnpo", "grpo", "dr_grpo", "dapo"), "gspo", "wd1" or "spg". TRL's beta
    is the weight of the KL to the initial model, epsilon the clip range, top_entropy_quantile the
    share of tokens trained on, num_generations G and num_iterations mu. d1 uses beta=0.04,
    epsilon=0.5, temperature=0.9 and num_iterations=12.

    prompt_mask_probability: probability that a prompt token is masked. share_group_masks: the
    completions of a prompt share their masks; False: d1's. num_mc_samples: masks per completion
    (random_mask, elbo) or its slices (trace). t_sampling ("random", "quadrature"), complement,
    blockwise: of elbo. baseline: of advantages, "mean", "leave_one_out" or "z_score" (with
    scale_rewards="none", the default here). kl_estimator: "k3" per token or "k2_sequence".
    wd1_temperature, spg_exponent, spg_mixture, kl_cov_share, kl_cov_coef: of those losses.
    resample: times that groups with equal rewards are sampled again. micro_batch_mean: bnpo as the
    mean over micro-batches, as in d1 and TRL; False: over the rollout.

    An optimizer step uses the whole rollout: per_device_train_batch_size x processes x
    gradient_accumulation_steps completions. Raises ValueError for options of TRL that a diffusion
    model cannot follow, and for combinations without a meaning."""

    scale_rewards: str = field(default="none", metadata={"help": "see baseline; d1: none"})
    disable_dropout: bool = field(default=True, metadata={"help": "the first ratio is then 1"})
    loss_type: str = field(default="bnpo", metadata={"help": "policy loss"})
    estimator: str = field(default="one_step", metadata={"help": "log-probability estimator"})
    sampler: SamplerConfig | None = field(default=None, metadata={"help": "of rollouts"})
    prompt_mask_probability: float = field(default=0.15, metadata={"help": "of prompt tokens"})
    share_group_masks: bool = field(default=True, metadata={"help": "one mask per prompt"})
    num_mc_samples: int = field(default=2, metadata={"help": "masks per completion"})
    t_sampling: Literal["random", "quadrature"] = field(
        default="random", metadata={"help": "elbo: mask ratios"}
    )
    complement: bool = field(default=False, metadata={"help": "elbo: complementary masks"})
    blockwise: bool = field(default=True, metadata={"help": "elbo of blockwise sampling"})
    baseline: Literal["mean", "leave_one_out", "z_score"] = field(
        default="mean", metadata={"help": "of advantages"}
    )
    kl_estimator: Literal["k3", "k2_sequence"] = field(default="k3", metadata={"help": "of the KL"})
    wd1_temperature: float = field(default=1.0, metadata={"help": "wd1: of the softmax"})
    spg_exponent: float = field(default=1.5, metadata={"help": "SPG: exponent of the bound"})
    spg_mixture: float = field(default=0.5, metadata={"help": "SPG: weight of the bound"})
    kl_cov_share: float = field(default=0.0, metadata={"help": "KL-Cov: share of tokens"})
    kl_cov_coef: float = field(default=1.0, metadata={"help": "KL-Cov: weight"})
    resample: int = field(default=0, metadata={"help": "of groups with equal rewards"})
    micro_batch_mean: bool = field(default=False, metadata={"help": "bnpo: d1's normalizer"})

    def __post_init__(self) -> None:
        if self.bf16 is None and not is_torch_bf16_gpu_available():
            self.bf16 = False  # TRL's default is True, which transformers refuses on a CPU
        super().__post_init__()
        if isinstance(self.sampler, dict):
            self.sampler = SamplerConfig(**self.sampler)
        if self.sampler is None:
            length = int(self.max_completion_length or 0)
            width = 32 if length % 32 == 0 else length
            self.sampler = SamplerConfig(length, width, max(length // 2, length // width))
        self.max_completion_length = self.sampler.gen_length
        for name, (value, reason) in _FIXED.items():
            given = getattr(self, name)
            if given != value:
                raise ValueError(f"{name}={given!r}: {reason}")
        if self.steps_per_generation != self.gradient_accumulation_steps:
            raise ValueError(
                f"steps_per_generation={self.steps_per_generation}: an optimizer step uses the "
                f"whole rollout; use gradient_accumulation_steps={self.steps_per_generation}"
            )
        if self.baseline != "mean" and self.scale_rewards != "none":
            raise ValueError(f"baseline={self.baseline!r}: needs scale_rewards='none'")
        require_choices(self, ("baseline", "kl_estimator", "t_sampling"))
        _check_method(self)
        self.options  # noqa: B018 - checks the ranges

    @property
    def rollout_sampler(self) -> SamplerConfig:
        """The sampler of rollouts: with `temperature`, and with the trace that "trace" needs."""
        if self.sampler is None:
            raise ValueError("sampler=None: set by the constructor")
        trace = self.estimator == "trace"
        return replace(self.sampler, temperature=self.temperature, trace=trace)

    @property
    def options(self) -> RLConfig:
        """The method's options as the command line has them."""
        blocks: dict[str, dict[str, Any]] = {"": {}, "rollout": {}, "masks": {}, "loss": {}}
        for name, path in _OPTIONS.items():
            block, _, option = path.rpartition(".")
            blocks[block][option] = getattr(self, name)
        return RLConfig(
            **blocks[""],
            rollout=RolloutConfig(**blocks["rollout"]),
            masks=MasksConfig(**blocks["masks"]),
            loss=LossConfig(**blocks["loss"]),
            optimizer=OptimizerConfig(micro_batch_size=1 if self.micro_batch_mean else None),
        )

    @classmethod
    def method_arguments(cls, options: RLConfig) -> dict[str, Any]:
        """The arguments that correspond to options of the command line."""
        d1_mean = options.optimizer.micro_batch_size is not None
        arguments = {name: attrgetter(path)(options) for name, path in _OPTIONS.items()}
        return arguments | {"micro_batch_mean": d1_mean}

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain values."""
        sampler = self.sampler
        return super().to_dict() | {"sampler": None if sampler is None else asdict(sampler)}


def _check_method(args: DiffuGRPOConfig) -> None:
    for name, table in (("estimator", ESTIMATORS), ("loss_type", RL_LOSSES)):
        value = getattr(args, name)
        if value not in table:
            raise ValueError(f"{name}={value!r}: unknown; use one of {', '.join(table)}")
    method, is_bound = RL_LOSSES[args.loss_type], ESTIMATORS[args.estimator].is_bound
    if args.estimator not in method.estimators:
        usable = [name for name, each in RL_LOSSES.items() if args.estimator in each.estimators]
        raise ValueError(
            f"loss_type={args.loss_type!r}: not with estimator={args.estimator!r}; use estimator "
            f"{', '.join(method.estimators)}, or loss_type {', '.join(usable)}"
        )
    if args.beta and is_bound and args.kl_estimator != "k2_sequence":
        raise ValueError(
            f"kl_estimator={args.kl_estimator!r}: estimator={args.estimator!r} has no token "
            "probabilities; use 'k2_sequence', or beta=0"
        )
    for name, off in (("top_entropy_quantile", 1.0), ("kl_cov_share", 0.0)):
        value = getattr(args, name)
        if value != off and not method.per_token:
            losses = ", ".join(PER_TOKEN_LOSSES)
            raise ValueError(f"{name}={value}: needs a loss per token; use loss_type {losses}")
